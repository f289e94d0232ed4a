"""The sizes of the search network and of the target network, and what depends on which."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.budgets.derive import derive_best
from hwnas.errors import HwnasError
from hwnas.recipe import read_recipe
from hwnas.runs.request import build_objectives
from hwnas.runs.two_networks import choose_networks
from hwnas.search.methods import METHODS
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.search.target import resource_penalty
from hwnas.spaces import Setting, SizedSpace
from hwnas.tables.network_key import choose_network
from support.searches import FEW
from support.spaces import DARTS, NB201, SMALL
from support.tables import make_table
from support.two_networks import TARGET, images_of, named_table, request_of, searched_at

LARGE = SizedSpace(DARTS, Setting(channels=36, depth=6, height=16, width=16, classes=3))
MOBILE = SizedSpace(DARTS, Setting(channels=40, depth=6, height=64, width=64, classes=7, stem="imagenet"))


def test_a_target_no_larger_than_the_search_setting_is_searched_as_it_is() -> None:
    networks = choose_networks(request_of(TARGET), images_of(32, 3), None)
    assert networks.search_sized == networks.target_sized == TARGET
    assert networks.target_data is networks.data
    assert not networks.proxy
    assert networks.describe() == []


def test_images_that_do_not_fit_are_those_of_the_search_network_alone() -> None:
    networks = choose_networks(request_of(TARGET), images_of(16, 10), None)
    assert networks.target_sized == TARGET
    assert networks.search_sized == TARGET.resized(height=16, width=16, classes=10)
    assert networks.target_data is None
    assert networks.proxy
    first, second = networks.describe()
    assert "target network" in first
    assert "3x32x32 input, 3 classes" in first
    assert "search network" in second
    assert "3x16x16 input, 10 classes" in second


def test_the_target_follows_images_where_the_table_holds_their_network() -> None:
    """As it did when there was one network: the sizes of the images need not be given."""
    at_images = TARGET.resized(height=16, width=16, classes=10)
    networks = choose_networks(request_of(TARGET, make_table(at_images)), images_of(16, 10), None)
    assert networks.search_sized == networks.target_sized == at_images
    more_classes = choose_networks(request_of(TARGET), images_of(32, 10), None)  # only the head differs
    assert more_classes.search_sized == more_classes.target_sized == TARGET.resized(classes=10)
    fixed = request_of(TARGET, fixed_sizes=frozenset(["classes"]))
    assert choose_networks(fixed, images_of(32, 10), None).target_sized == TARGET


def test_a_large_target_is_searched_at_the_search_setting() -> None:
    networks = choose_networks(request_of(LARGE), images_of(16, 3), None)
    assert networks.target_sized == LARGE
    assert networks.search_sized == SizedSpace.named(DARTS, height=16, width=16, classes=3)
    assert networks.target_data is networks.data  # they fit both
    assert networks.proxy
    smaller = choose_networks(request_of(LARGE, search_sizes=searched_at(4, 3)), images_of(16, 3), None)
    assert smaller.search_sized.setting == replace(networks.search_sized.setting, channels=4, depth=3)
    other = choose_networks(request_of(LARGE, search_sizes=searched_at(setting="cifar")), images_of(16, 3), None)
    assert other.search_sized == SizedSpace.named(DARTS, "cifar", height=16, width=16, classes=3)


def test_the_stem_of_large_images_is_kept_for_images_of_that_size_only() -> None:
    assert choose_networks(request_of(MOBILE), images_of(32, 10), None).search_sized.setting.stem == "cifar"
    same_images = choose_networks(request_of(MOBILE), images_of(64, 10), None)
    assert same_images.search_sized.setting == Setting(16, 8, 3, 64, 64, 10, "imagenet", pool_norm=True)


def test_target_data_are_the_images_of_the_target_network() -> None:
    data, target_data = images_of(16, 10), images_of(32, 3)
    networks = choose_networks(request_of(TARGET), data, target_data)
    assert networks.target_sized == TARGET
    assert networks.target_data is target_data
    # Images of other sizes are accepted where the table holds their network.
    wider = make_table(TARGET.resized(height=16, width=16, classes=4))
    assert choose_networks(request_of(TARGET, wider), data, images_of(16, 4)).target_sized.setting.classes == 4
    # The same sizes with other images: the searched weights are a proxy.
    assert choose_networks(request_of(TARGET), images_of(32, 3), images_of(32, 3)).proxy is False
    other = replace(images_of(32, 3), labels=("a", "b", "c"))
    assert choose_networks(request_of(TARGET), images_of(32, 3), other).proxy is True


def test_inputs_that_fit_neither_network_are_refused() -> None:
    data = images_of(16, 10)
    with pytest.raises(HwnasError, match=r"takes 3x32x32 with 3 classes, but .* are 3x24x24 with 3 classes"):
        choose_networks(request_of(TARGET), data, images_of(24, 3))
    fixed = request_of(TARGET, fixed_sizes=frozenset(["height", "width"]))
    with pytest.raises(HwnasError, match=r"takes 3x32x32.*--target-data"):
        choose_networks(fixed, data, images_of(24, 3))
    unlike = request_of(TARGET.resized(channels=6), named_table(TARGET))
    with pytest.raises(HwnasError, match=r"lacks .*--search-channels and --search-cells"):
        choose_networks(unlike, data, None)
    one_cell = request_of(LARGE, search_sizes=searched_at(depth=1))
    with pytest.raises(HwnasError, match="has no normal cell"):
        choose_networks(one_cell, images_of(16, 3), None)
    with pytest.raises(HwnasError, match="2x2 image is too small"):
        choose_networks(request_of(TARGET), images_of(2, 3), None)


def test_other_images_than_those_of_the_table_change_its_network() -> None:
    table = named_table(MOBILE)
    assert choose_network(table, None, None, classes=3) == MOBILE.resized(classes=3)
    assert choose_network(table, None, None, height=96, width=96) == MOBILE.resized(height=96, width=96)
    assert choose_network(table, None, None, channels=16) == SizedSpace.named(DARTS, channels=16)


REQUEST = request_of(TARGET, budgets=["moderate", "60%-params", "80%-peak-memory,mild"])


@cache
def usual_objectives() -> tuple[list[Objective], list[str]]:
    return build_objectives(REQUEST.tables, REQUEST.budgets, TARGET)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(
    channels=st.integers(1, 12),
    depth=st.integers(1, 3),
    side=st.sampled_from([8, 16, 32]),
    classes=st.integers(2, 12),
    seed=st.integers(0, 9),
)
def test_the_search_network_changes_neither_preview_nor_derivation(
    channels: int, depth: int, side: int, classes: int, seed: int
) -> None:
    """Budgets, the number of architectures that keep them, and what given probabilities derive are the target's."""
    request = replace(REQUEST, search_sizes=searched_at(channels, depth), fixed_sizes=frozenset(asdict(TARGET.setting)))
    networks = choose_networks(request, images_of(side, classes), None)
    objectives, described = build_objectives(request.tables, request.budgets, networks.target_sized)
    usual, expected = usual_objectives()
    assert networks.search_sized.setting.channels == channels
    assert described == expected
    log_p = {"cell": np.log(np.random.default_rng(seed).dirichlet(np.ones(5), size=6))}
    for objective, known in zip(objectives, usual, strict=True):
        (one,), (other,) = (derive_best(NB201, log_p, each.limits, None, 1) for each in (objective, known))
        assert one == other
        assert {name: model.predict(one) for name, model in objective.costs.items()} == {
            name: model.predict(one) for name, model in known.costs.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_budget_of_a_larger_target(method: str) -> None:
    changes = {"batch_size": 16, "logits_warm_up": 0.0, "penalty.warm_up": 0.0}
    changes |= {"selection": {"name": "best_of", "samples": 4}} if method in ("enas", "random") else {}
    changes |= {"selection": {"name": "untrained", "samples": 3}} if method == "balenas-tf" else {}
    if method == "single-path":
        changes |= {"selection": {"name": "evolution", "population": 3, "generations": 2}}
    if method == "svge":
        changes |= {"selection": {"name": "latent", "evaluations": 4, "start": 2, "batch": 2}}
        changes |= {"autoencoder": {"width": 4, "latent": 3, "graphs": 200, "epochs": 1}}
    objectives, _ = usual_objectives()
    sized = SizedSpace(NB201, replace(SMALL["nasbench201"], channels=12))
    search = Search(sized, objectives, FEW, read_recipe(f"short/{method}", changes))
    for _ in range(2):
        search.take_step()
    for target in search.targets:
        architecture = search.evaluator.choose(target)
        for metric, bound in target.budget.limits.items():
            assert target.objective.costs[metric].predict(architecture) <= bound
        expected = target.relative_costs()  # E[C] / B of the target network
        p = {kind: values.detach().double() for kind, values in target.distribution.probabilities().items()}
        by_hand = []
        for metric, bound in target.objective.penalised.items():
            base, edges = target.objective.costs[metric].linear()  # type: ignore[union-attr]
            by_hand.append((base + sum(float((p[kind] * torch.from_numpy(edges[kind])).sum()) for kind in p)) / bound)
        np.testing.assert_allclose(expected.detach().numpy(), by_hand, rtol=1e-6)


def test_the_penalty_of_the_paper_counts_the_cells_of_the_target() -> None:
    """Its resources are averaged over the cells of a kind: over those of the network whose resources they are."""
    recipe = REQUEST.recipe.penalty.model_copy(update={"mode": "fixed", "form": "log", "resources": ("params", "macs")})
    (objective, *_), _ = usual_objectives()
    assert objective.target_sized == TARGET
    penalty = resource_penalty(recipe, TARGET, objective.costs)
    assert penalty
    params = objective.costs["params"].linear()[1]["cell"]  # type: ignore[union-attr]
    np.testing.assert_allclose(penalty.edges["params"]["cell"].numpy(), params / 6)  # two cells in each of three stages
