"""Charts in tests that are about something else: laid out, and not drawn, which takes most of their time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

DRAW = Figure.savefig
BLANK = b"\x89PNG\r\n\x1a\nblank"


def draw_none(patch: pytest.MonkeyPatch) -> None:
    def savefig(self: Figure, path: Path, **options: Any) -> None:
        path.write_bytes(BLANK)

    patch.setattr(Figure, "savefig", savefig)


def draw_all(patch: pytest.MonkeyPatch) -> None:
    """Undo draw_none."""
    patch.setattr(Figure, "savefig", DRAW)
