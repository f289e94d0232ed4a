"""The memory size is the smaller of machine and container limit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwnas.data import memory
from hwnas.data.memory import memory_bytes


def test_memory_is_the_smaller_of_machine_and_container_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (limit, tmp_path / "none"))
    total = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
    for written, expected in ((None, total), ("max\n", total), ("12345678\n", 12345678)):
        if written:
            limit.write_text(written)
        assert memory_bytes() == expected
