"""Searches whose kernels and expansions share blocks: resumption, children, recipes that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.recipe import read_recipe
from hwnas.search.search import Search
from support.searches import assert_resumes, chain_searching, searching


@pytest.mark.slow
def test_a_resumed_search_with_shared_blocks_ends_in_the_same_bits(tmp_path: Path) -> None:
    def fresh() -> Search:
        return chain_searching("chain/snas", epochs=3, shared_blocks="transformed")

    search = assert_resumes(fresh, tmp_path)
    names = dict(search.supernet.named_parameters())
    maps = {name: p for name, p in names.items() if ".maps." in name}
    assert maps
    assert any(not torch.equal(p, torch.eye(9)) for p in maps.values())  # they have learnt
    architecture = search.evaluator.choose(search.targets[0])
    images = search.data.normalise(search.data.validation.images[:8])  # type: ignore[arg-type]
    child = search.supernet.eval().child(architecture).eval()
    with torch.no_grad():
        torch.testing.assert_close(child(images), search.supernet.run_architecture(images, architecture))


@pytest.mark.slow
def test_a_resumed_search_from_pretrained_weights_ends_in_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sized = chain_searching("chain/snas", epochs=1).sized
    child = ChildNetwork(sized, sized.space.parse("k5_e3 k5_e3 k5_e3 k5_e3 k5_e3"), prune=True)
    torch.save(child.state_dict(), tmp_path / "weights.pth")

    def fresh() -> Search:
        return chain_searching("chain/snas", epochs=3, pretrained=str(tmp_path / "weights.pth"))

    fit = fresh().supernet_state.fit
    assert fit is not None
    assert fit.fits["parts.1.edges.1.k5_e3.layers.0"] == "parts.1.edges.1.layers.0"
    search = assert_resumes(fresh, tmp_path / "run")
    factors = [p for name, p in search.supernet.cells[0].named_parameters() if name.endswith("k5_e3.layers.1.weight")]
    assert factors
    assert any(not torch.equal(p, torch.ones_like(p)) for p in factors)  # batch norms learn scales


def test_recipes_that_do_not_share_blocks_keep_their_hash() -> None:
    assert "shared_blocks" not in read_recipe("chain/snas", {}).model_dump(mode="json")
    shared = read_recipe("chain/snas", {"shared_blocks": "slices"}).model_dump(mode="json")
    assert shared["shared_blocks"] == "slices"
    with pytest.raises(HwnasError, match="shared_blocks"):
        read_recipe("chain/snas", {"shared_blocks": "halves"})


def test_shared_blocks_need_a_chain() -> None:
    with pytest.raises(HwnasError, match=r"space nasbench201 has none that differ in these alone"):
        searching("nasbench201", "short/gdas", shared_blocks="slices")
