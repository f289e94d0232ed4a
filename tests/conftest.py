"""Fixtures of all tests; helpers that tests import are in tests/support."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from support.blank_pictures import draw_all, draw_none
from support.chromium import Chromium, find_chromium
from support.command import Run, invoke, profile
from support.no_finalists import train_none_by_default
from support.once import made_once, shared_folder
from support.short_timings import shorten_timings
from support.tables import make_table


def pytest_collection_finish() -> None:
    """Leave the half million objects that exist now, and stay, out of all garbage collections."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_finalists() -> Iterator[None]:
    """Searches train no finalists by default, so that no test pays for them that is about something else."""
    with pytest.MonkeyPatch.context() as patch:
        train_none_by_default(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pictures() -> Iterator[None]:
    """Charts are blank, except where a test uses ``pictures``."""
    with pytest.MonkeyPatch.context() as patch:
        draw_none(patch)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw charts."""
    draw_all(monkeypatch)


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """A table of nasbench201 at 4 channels, one cell a stage, 3x16x16 images, 10 classes."""
    space = get_space("nasbench201")
    write_table(
        tmp_path / "table.json", make_table(SizedSpace(space, Setting(channels=4, depth=1, height=16, width=16)))
    )
    return tmp_path / "table.json"


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, pieces: Path) -> Path:
    """A table of this machine, of the same network; no test changes it."""
    sizes = ("--channels", 4, "--cells", 1, "--input", "3x16x16")
    quick = ("--rounds", 6, "--fit-networks", 4, "--report-networks", 4)
    with pytest.MonkeyPatch.context() as patch:
        shorten_timings(patch, pieces)
        return made_once(tmp_path_factory, "measured.json", lambda out: profile(invoke, *sizes, *quick, "--out", out))


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of operations exported as ONNX, which all processes of a test run share."""
    folder = shared_folder(tmp_path_factory) / "pieces"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def short_timings(monkeypatch: pytest.MonkeyPatch, pieces: Path) -> None:
    """Time models for a moment, in this process."""
    shorten_timings(monkeypatch, pieces)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``hwnas ARGUMENTS`` in this process."""
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    return invoke


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    """Start Chromium. Only for tests marked with ``needs_browser`` of support.pages."""
    program = find_chromium()
    assert program
    with Chromium(program, tmp_path / "profile") as chromium:
        yield chromium
