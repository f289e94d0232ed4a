"""The graph autoencoder: both decoders are distributions over graphs, held-out graphs come back, repeats are equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hwnas.latent import training
from hwnas.latent.graphs import CellGraphs
from hwnas.latent.latent_space import LatentSpace
from hwnas.latent.measures import measure
from hwnas.latent.training import new_autoencoder, train_autoencoder, trained_autoencoder
from hwnas.recipe import Autoencoder
from hwnas.training.checkpoint import pack, unpack
from support.latent import small_latent_space
from support.searches import unlike
from support.small_spaces import EVERY, SPACES
from support.spaces import CELL_SPACES

TINY = Autoencoder(latent=3, width=4, graphs=100, epochs=2, batch_size=32)


@pytest.mark.parametrize("name", ["skip and conv", "nasbench201"])
def test_both_decoders_are_distributions_over_all_graphs(name: str) -> None:
    """The probabilities of all graphs of a space, given one latent, sum to 1."""
    choices = torch.from_numpy(EVERY[name])
    model = new_autoencoder(CellGraphs(SPACES[name]), TINY, 0)
    for latent in torch.randn(2, TINY.latent, generator=torch.Generator().manual_seed(1)):
        with torch.no_grad():
            totals = [decoder(latent.expand(len(choices), -1), choices)[1] for decoder in model.decoders]
        for log_p in totals:
            assert float(log_p.double().exp().sum()) == pytest.approx(1, abs=1e-4)
        assert not torch.allclose(*totals)
        likelier, other = model.decode(latent[None])
        sums = totals[0] + totals[1]
        assert float(sums[(choices == likelier).all(dim=1)]) >= float(sums[(choices == other).all(dim=1)])


def test_a_decoder_builds_the_graph_whose_probability_it_returns() -> None:
    model = new_autoencoder(CellGraphs(CELL_SPACES["darts"], 2), TINY, 0)
    latents = torch.randn(5, TINY.latent, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for decoder in model.decoders:
            built, log_p = decoder(latents)
            torch.testing.assert_close(decoder(latents, built)[1], log_p)


def test_no_two_graphs_have_equal_latents() -> None:
    """Also those whose nodes have the same operations, in another order."""
    graphs = CellGraphs(SPACES["skip and conv"])
    space = LatentSpace(graphs, new_autoencoder(graphs, TINY, 0))
    latents = space.encode(EVERY["skip and conv"])
    assert len(np.unique(latents.round(6), axis=0)) > 0.99 * len(latents)


def test_the_loss_falls_with_the_divergence_alone_where_latents_say_nothing() -> None:
    """Against torch.distributions: the divergence of the encoder's normal distribution from N(0, I)."""
    graphs = CellGraphs(CELL_SPACES["nasbench201"])
    model = new_autoencoder(graphs, TINY, 0)
    batch, noise = torch.from_numpy(graphs.training(20, 0, 0)), torch.zeros(20, TINY.latent)
    losses = []
    for model.kl in (0.0, 1.0):
        with torch.no_grad():
            losses.append(float(model.loss(batch, noise)))
    with torch.no_grad():
        mean, log_variance = model.encoder(batch)
    own, prior = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    expected = float(torch.distributions.kl_divergence(own, prior).sum(dim=1).mean())
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        totals = sum(decoder(mean, batch)[1] for decoder in model.decoders)
    assert losses[0] == pytest.approx(-float(totals.mean()), rel=1e-5)


@pytest.mark.slow
def test_most_held_out_graphs_are_reconstructed_from_few_and_random_latents_are_valid() -> None:
    """657 graphs are few to learn from; benchmarks/latent_search.py measures a whole space."""
    measures = measure(small_latent_space())
    assert measures.graphs == 72
    assert measures.reconstructed > 0.5  # one edge of 3 operations by chance: 0.33, a graph: 0.001
    assert measures.valid > 0.95
    steps = list(measures.edges_changed.values())
    assert steps[0] < steps[-1] < measures.edges_between + 0.5
    assert measures.distance_correlation > 0.4
    assert measures.path_detour >= 1
    assert "of 72 held-out graphs reconstructed" in measures.describe()


def test_a_repeated_training_gives_the_same_bits_and_leaves_torch_s_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, found = CellGraphs(CELL_SPACES["nasbench201"]), []
    for torch_seed in (1, 2):
        monkeypatch.setattr(training, "_last", {})
        torch.manual_seed(torch_seed)
        before = torch.random.get_rng_state()
        assert list(train_autoencoder(graphs, TINY, 3)) == [1, 2]
        space = trained_autoencoder(graphs, TINY, 3)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert list(train_autoencoder(CellGraphs(CELL_SPACES["nasbench201"]), TINY, 3)) == []  # not trained again
        found.append(space.autoencoder.state_dict())
    assert unlike(dict(found[0]), dict(found[1])) == []
    other = trained_autoencoder(graphs, TINY, 4).autoencoder.state_dict()
    assert unlike(dict(found[0]), dict(other))
    again = new_autoencoder(graphs, TINY, 5)
    again.load_state_dict(unpack(pack("digest", dict(found[0]))))
    latents = space.encode(graphs.held_out)
    np.testing.assert_array_equal(LatentSpace(graphs, again.eval()).encode(graphs.held_out), latents)


def test_another_setting_is_another_autoencoder() -> None:
    graphs = CellGraphs(CELL_SPACES["darts"], 2)
    few = TINY.model_copy(update={"graphs": 20, "epochs": 1})
    space = trained_autoencoder(graphs, few, 0)
    assert space.dimensions == 3
    wider = trained_autoencoder(replace(graphs, inputs_per_node=None), few.model_copy(update={"latent": 5}), 0)
    assert wider.dimensions == 5
    assert wider.decode(np.zeros((2, 5))).shape == (2, 28)


def test_measures_of_a_space_with_hardly_any_graphs() -> None:
    graphs = CellGraphs(SPACES["skip and conv"], without=("none", "skip_connect"))
    space = trained_autoencoder(graphs, TINY, 0)
    measures = measure(space)
    assert measure(space) == measures
    assert measures.graphs == 1
    assert (measures.edges_between, measures.distance_correlation, measures.path_detour) == (None, None, None)
