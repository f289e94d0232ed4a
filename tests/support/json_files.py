"""JSON files that commands write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def content_of(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
