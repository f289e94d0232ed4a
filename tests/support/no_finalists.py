"""Searches that train no finalists by default: a test that is about them asks for some."""

from __future__ import annotations

import pytest

from hwnas.finalists import price


def train_none_by_default(patch: pytest.MonkeyPatch) -> None:
    """Let no finalists be cheap enough to be trained by default."""
    patch.setattr(price, "CHEAP_S", 0.0)
