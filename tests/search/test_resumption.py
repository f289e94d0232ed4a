"""Searches resume in the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.search.methods import METHODS
from hwnas.search.search import Search
from hwnas.training.checkpoint import Checkpoint
from support.searches import searching, unlike

WHOLE = [
    *((space, method) for space in ("nasbench201",) for method in METHODS),
    *(("darts", method) for method in ("advantagenas", "drnas-progressive", "entrannas-dst", "pc-darts")),
    *(("darts-extended", method) for method in ("entrannas", "entrannas-dst")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "method"), WHOLE)
def test_a_resumed_search_ends_in_the_same_bits(tmp_path: Path, space: str, method: str) -> None:
    """From two checkpoints on disk: from one in the first half of the steps to the other, from that to the end."""
    folder = "short" if space == "nasbench201" else space
    changes = {
        "epochs": 4,
        "batch_size": 64 if space == "nasbench201" else 8,
        **({"learning": {"name": "reinforce", "samples": 2, "every": 2}} if method == "enas" else {}),
    }

    def fresh() -> Search:
        return searching(space, f"{folder}/{method}", "mild", "aggressive", **changes)

    torch.manual_seed(1)
    search, length = fresh(), 8 if space == "nasbench201" else 4
    total = search.schedule.total_steps
    steps = [n * total // length for n in range(length)] if space != "nasbench201" else range(total)
    kept, places = {}, (len(steps) // 4 + 1, 3 * len(steps) // 4)
    for number, step in enumerate(steps):
        if number in places:
            kept[number] = Checkpoint(tmp_path / f"{number}.pt", "digest")
            kept[number].save(search.state())
        search.step = step
        search.take_step()
    start = fresh().state()
    moved = unlike(start["distributions"], search.state()["distributions"])
    assert bool(moved) == (method not in ("random", "single-path", "svge"))
    kept_states = [kept[number].load() for number in places]
    ends = [(places[1], kept_states[1]), (len(steps), search.state())]
    for number, state, (end, expected) in zip(places, kept_states, ends, strict=True):
        torch.manual_seed(2)
        again = fresh()
        assert state is not None
        again.load_state(state)
        for step in list(steps)[number:end]:
            again.step = step
            again.take_step()
        assert unlike(expected, again.state()) == []
    if search.schedule.stages[-1].operations < 10:
        assert search.position.stage == len(search.schedule.stages) - 1
