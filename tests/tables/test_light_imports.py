"""``hwnas table`` imports neither torch nor numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.tables.export import export_table
from hwnas.tables.io import write_table
from support.paths import FROZEN_TABLES
from support.table_samples import V1


@pytest.mark.parametrize(
    "arguments",
    [
        ["schema"],
        ["diff", "v1.json", "v1.json"],
        ["check", "v2.json"],
        ["check", "v1.json", "--contents", "--strict"],
        ["show", "v2.json"],
        ["export", "v1.json", "--out", "t.csv"],
        ["import", "t.csv", "--out", "t.json"],
        ["merge", "v1.json", "t.json", "--out", "m.json"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_tables_are_exchanged_without_torch_and_numpy(arguments: list[str], tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / f"v{version}.json").write_bytes((FROZEN_TABLES / f"v{version}.json").read_bytes())
    export_table(V1, tmp_path / "t.csv")
    write_table(tmp_path / "t.json", V1)
    code = (
        "import sys; from hwnas.cli import app; "
        f"sys.argv = ['hwnas', 'table', *{arguments!r}]\n"
        "try: app()\nexcept SystemExit as e: assert e.code in (None, 0, 1), e.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'onnx', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
