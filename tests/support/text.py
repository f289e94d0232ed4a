"""A small text, and small searches of recurrent cells on it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import strategies as st

from hwnas.budgets.budget import parse_budget, preview
from hwnas.cost.build import CostFunction, build_metrics
from hwnas.data.text import TextData, text_data
from hwnas.progress import Progress
from hwnas.recipe import read_recipe
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import Architecture, SizedSpace, get_space
from support.lazy import Lazy
from support.searches import FEW_STEPS
from support.tables import make_table

register_builtin()
RECURRENT, RECURRENT_DARTS = get_space("recurrent"), get_space("recurrent-darts")
WORDS = ("the", "cat", "dog", "sees", "hears", "a", "bird", "and", "then", "sleeps", "N", "<unk>")
WINDOW = "window=5"


def write_text(file: Path, lines: int = 60, seed: int = 0) -> Path:
    """Write lines of words in which a word says much about the next, and return the file."""
    generator, written = np.random.default_rng(seed), []
    for _ in range(lines):
        word, line = int(generator.integers(len(WORDS))), []
        for _ in range(8):
            line.append(WORDS[word])
            word = (2 * word + int(generator.integers(2))) % len(WORDS)
        written.append(" ".join(line))
    file.write_text("\n".join(written) + "\n", encoding="utf-8")
    return file


def small_text(folder: Path) -> TextData:
    """Return a text in windows of 5 words."""
    file = write_text(folder / "small.txt")
    return text_data(f"text:{file}?{WINDOW}", str(file), {"window": "5"}, Progress(quiet=True))


def small_sized(space: str = "recurrent") -> SizedSpace:
    """Return a space at vectors of 8 values, for the words of the small text."""
    return SizedSpace.named(get_space(space), channels=8, classes=len(WORDS) + 1)


def recurrent_cells(space: str = "recurrent") -> st.SearchStrategy[Architecture]:
    """Return a strategy that draws architectures uniformly."""
    found = get_space(space)
    edges = len(found.cells["cell"].edges)
    return st.tuples(*[st.sampled_from(found.operations)] * edges).map(lambda chosen: found.architecture((chosen,)))


def small_costs(space: str) -> dict[str, CostFunction]:
    return build_metrics(make_table(small_sized(space)), small_sized(space))


COSTS = Lazy(("recurrent", "recurrent-darts"), small_costs)


def text_searching(space: str, recipe: str, *budgets: str, data: TextData | None = None, **changes: object) -> Search:
    """Build a search of small recurrent cells on the small text."""
    settings = read_recipe(recipe, {**FEW_STEPS, "epochs": 2, **changes})
    costs = COSTS[space]
    objectives = [Objective("table", parse_budget(b, preview(costs)), costs) for b in budgets or ("moderate",)]
    if data is None:
        with TemporaryDirectory() as folder:
            data = small_text(Path(folder))
    return Search(small_sized(space), objectives, data, settings)
