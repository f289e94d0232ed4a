"""Look into a shelf, change it, and push to it from several processes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwnas.tables.io import table_text
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line

Files = dict[str, bytes]


def files_in(folder: Path) -> Files:
    """Return the content of every file below a folder by its path, hidden files included."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def record_of(folder: Path, name: str = "cpu") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "records" / f"{name}.json").read_text())
    return content


def rewrite(folder: Path, **changes: Any) -> None:
    """Change fields of the shelf's only record, in the index too."""
    record = record_of(folder) | changes
    (folder / "records" / "cpu.json").write_text(json.dumps(record))
    (folder / "index.json").write_text(json.dumps({"format": "hwnas-shelf", "version": 1, "records": [record]}))


def rehash(folder: Path, data: bytes) -> None:
    """Replace the table with other bytes and correct size and hash in the record."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / "tables" / f"{digest}.json").write_bytes(data)
    rewrite(folder, file_sha256=digest, file_bytes=len(data))


def refuses_pull(run: Run, address: object, tmp_path: Path, *words: str) -> None:
    """Check that a pull ends with one error line and writes nothing."""
    before = files_in(tmp_path)
    assert_one_clear_line(run("table", "pull", "cpu", address, "--out", tmp_path / "got" / "cpu.json"), *words)
    assert files_in(tmp_path) == before


PUSHER = """
import sys
from pathlib import Path
from hwnas.errors import HwnasError
from hwnas.sharing.push import push
print("ready", flush=True)
sys.stdin.readline()
for pair in sys.argv[2:]:
    file, name = pair.split("=")
    try:
        print(push(Path(file), sys.argv[1], name).state)
    except HwnasError as error:
        print("error:", error)
"""


def push_at_once(address: str, *lots: list[str]) -> list[list[str]]:
    """Start one process for each list of ``file=name`` at the same moment; return what each printed of its pushes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUSHER, address, *lot],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for lot in lots
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def tables_of(folder: Path, made: LatencyTable, count: int) -> list[Path]:
    folder.mkdir()
    files = [folder / f"t{number:02}.json" for number in range(count)]
    for file in files:
        file.write_text(table_text(made.model_copy(update={"source": file.stem, "entries": made.entries[:2]})))
    return files


def bounded(call: Callable[[], object], megabytes: int) -> None:
    tracemalloc.start()
    try:
        call()
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()


def re_escape(url: str) -> str:
    return url.replace(".", r"\.")


def listed(result: Any) -> dict[str, dict[str, dict[str, Any]]]:
    shelves = json.loads(result.stdout)["shelves"]
    return {Path(s["shelf"]).name: {table["name"]: table for table in s["tables"]} for s in shelves}
