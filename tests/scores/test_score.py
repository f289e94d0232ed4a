"""Scores of architectures in the built-in spaces, a user's space and one with a plug-in operation."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.scores.score import SCORES, score_architectures
from hwnas.search.plugin import load_plugin
from hwnas.spaces import NONE, Architecture, Cell, SearchSpace, Setting, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode, every_choice, without_dead_edges
from support.paths import ROOT
from support.published_accuracies import CIFAR10
from support.spaces import ALL_CONV, CELL_SPACES, NB201, SMALL, architectures, live_by_paths

BUILTIN = ("params", "macs", "synflow", "naswot", "zico")
PAGES = {"my_space.yaml": "own-space.md", "bottlenecks.yaml": "add-an-operation.md"}
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of two pages: a user's space, and one with a plug-in operation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bottleneck", raising=False)
    for page in PAGES.values():
        text = (ROOT / "docs/how-to" / page).read_text(encoding="utf-8")
        for name, content in re.findall(r'```\w+ title="(.*?)"\n(.*?)```', text, re.DOTALL):
            (tmp_path / name).write_text(content)
    return tmp_path


@pytest.fixture
def added() -> Iterator[None]:
    """Removes the scores that a test adds."""
    before = dict(SCORES)
    yield
    SCORES.clear()
    SCORES.update(before)


def at_small_size(space: SearchSpace) -> SizedSpace:
    return SizedSpace(space, SMALL.get(space.name) or Setting(channels=4, depth=1, height=16, width=16))


def random_architectures(space: SearchSpace, count: int) -> list[Architecture]:
    choices = np.random.default_rng(0).integers(len(space.operations), size=(count, space.num_edges))
    return [decode(space, choice) for choice in choices]


def live_part(cell: Cell, chosen: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(op if used else NONE for op, used in zip(chosen, live_by_paths(cell, chosen), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["nasbench201", "darts", *PAGES])
def test_scores_depend_on_the_architecture_and_the_seed_alone(folder: Path, spec: str) -> None:
    sized = at_small_size(get_space(spec))
    some = random_architectures(sized.space, 3)
    generator = torch.get_rng_state()
    scores = score_architectures(sized, some, BUILTIN, IMAGES, seed=3)
    assert list(scores) == list(BUILTIN)
    assert all(values.shape == (3,) and values.dtype == np.float64 for values in scores.values())
    assert all(np.isfinite(values).all() for values in scores.values())
    torch.rand(1)
    again = score_architectures(sized, [some[2], some[1], some[2]], [*reversed(BUILTIN)], IMAGES, seed=3)
    for name in BUILTIN:
        np.testing.assert_array_equal(again[name], scores[name][[2, 1, 2]])
    other = score_architectures(sized, some[:1], BUILTIN, IMAGES, seed=4)
    assert {name for name in BUILTIN if other[name][0] != scores[name][0]} == {*BUILTIN} - {"params", "macs"}
    torch.set_rng_state(generator)
    score_architectures(sized, some[:1], BUILTIN, IMAGES)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures), st.randoms(use_true_random=False))
def test_dead_edges_do_not_matter(architecture: Architecture, random) -> None:
    space = CELL_SPACES[architecture.space]
    changed = []
    for cell, chosen in zip(space.cells.values(), architecture.cells, strict=True):
        dead = list(chosen)
        for e in random.sample(range(len(dead)), len(dead)):
            if not live_by_paths(cell, tuple(dead))[e]:
                op, dead[e] = dead[e], random.choice(space.operations)
                if live_by_paths(cell, tuple(dead)) != live_by_paths(cell, chosen):
                    dead[e] = op
        changed.append(tuple(dead))
    scores = score_architectures(
        at_small_size(space), [architecture, Architecture(space.name, tuple(changed))], BUILTIN, IMAGES
    )
    assert all(first == second for first, second in scores.values())


@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_dead_edges_become_none(architecture: Architecture) -> None:
    space = CELL_SPACES[architecture.space]
    pruned = decode(space, without_dead_edges(space, encode(space, [architecture]))[0])
    for cell, chosen, left in zip(space.cells.values(), architecture.cells, pruned.cells, strict=True):
        assert left == live_part(cell, chosen)


@pytest.mark.parametrize("spec", ["nasbench201", "darts", *PAGES])
def test_counts_are_those_of_the_pruned_network(folder: Path, spec: str) -> None:
    sized = at_small_size(get_space(spec))
    some = random_architectures(sized.space, 2)
    scores = score_architectures(sized, some, ["params", "macs"])
    counts = [count_network(ChildNetwork(sized, architecture, prune=True)) for architecture in some]
    assert scores["params"].tolist() == [count.params for count in counts]
    assert scores["macs"].tolist() == [count.macs(sized.space.macs_convention) for count in counts]


def test_architectures_with_one_network_are_scored_once(added: None) -> None:
    scored = []
    SCORES["counted"] = lambda child: scored.append(child.architecture) or float(len(scored))
    cells = [decode(NB201, choice) for choice in every_choice(NB201)[::5]]
    values = score_architectures(at_small_size(NB201), cells, ["counted"])["counted"]
    cell = NB201.cells["cell"]
    live = {live_part(cell, c.cells[0]) for c in cells}
    assert {cell.cells[0] for cell in scored} == live
    assert len(scored) == len(live) == len(set(values)) < len(cells)


def test_a_plugin_adds_a_score(tmp_path: Path, added: None) -> None:
    (tmp_path / "plugin.py").write_text(
        "import torch\n"
        "from hwnas.scores.score import SCORES\n"
        "SCORES['brightness'] = lambda child: float(child.network(child.images).detach().mean() + torch.rand(()))\n"
        "SCORES['broken'] = lambda child: float('nan')\n"
    )
    load_plugin(tmp_path / "plugin.py")
    sized, cells = at_small_size(NB201), random_architectures(NB201, 3)
    scores = score_architectures(sized, cells, ["brightness"], IMAGES)["brightness"]
    assert scores[1] == score_architectures(sized, cells[1:2], ["synflow", "brightness"], IMAGES)["brightness"][0]
    with pytest.raises(HwnasError, match=r"score broken of .* is nan"):
        score_architectures(sized, cells, ["broken"])


def test_bad_requests_are_refused() -> None:
    sized, cells = at_small_size(NB201), [NB201.parse(ALL_CONV)]
    with pytest.raises(HwnasError, match="unknown score 'zen'"):
        score_architectures(sized, cells, ["zen"])
    with pytest.raises(HwnasError, match="needs images"):
        score_architectures(sized, cells, ["naswot"])
    for wrong in (IMAGES[:3], IMAGES[:, :1], IMAGES[:, :, :8], IMAGES[0]):
        with pytest.raises(HwnasError, match=r"give at least 4 images of shape \[3, 16, 16\]"):
            score_architectures(sized, cells, ["naswot"], wrong)
    assert score_architectures(sized, [], ["synflow"])["synflow"].shape == (0,)


@pytest.mark.slow
def test_scores_rank_published_cells() -> None:
    sized = SizedSpace(NB201, Setting(channels=8, depth=1, height=16, width=16))
    images = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = score_architectures(sized, [NB201.parse(text) for text in CIFAR10], BUILTIN, images)
    for name, values in scores.items():
        assert spearmanr(values, list(CIFAR10.values())).statistic > 0.5, name
