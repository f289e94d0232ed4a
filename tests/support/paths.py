"""Folders of the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"  # published accuracies, latencies and images, beside the checkout
FROZEN_TABLES = ROOT / "tests" / "support" / "frozen_tables"  # one table of each version of the format
