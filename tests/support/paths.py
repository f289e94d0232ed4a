"""Folders of the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "shared" / "data"  # recorded accuracies and latencies that are not part of the repository
FROZEN_TABLES = ROOT / "tests" / "support" / "frozen_tables"  # one table of each version of the format
