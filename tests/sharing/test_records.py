"""Shelves whose files were changed or are hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.files import sha256_of
from hwnas.tables.io import MAX_BYTES
from support.command import Run, assert_one_clear_line
from support.shelves import bounded, record_of, refuses_pull, rehash, rewrite


def test_pull_detects_a_changed_byte(run: Run, tmp_path: Path, folder: Path) -> None:
    file = next((folder / "tables").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refuses_pull(run, folder, tmp_path, "was changed", "do not use")


def test_pull_detects_truncated_longer_and_missing_tables(run: Run, tmp_path: Path, folder: Path) -> None:
    file = next((folder / "tables").iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refuses_pull(run, folder, tmp_path, "breaks off")
    file.write_bytes(whole + b" ")
    refuses_pull(run, folder, tmp_path, "is longer than")
    file.unlink()
    refuses_pull(run, folder, tmp_path, "is missing")
    file.mkdir()
    refuses_pull(run, folder, tmp_path, "is not a file")


def hostile_tables(whole: dict[str, Any]) -> dict[str, tuple[bytes, str]]:
    text = json.dumps(whole)
    entry = whole["entries"][0]
    evil = {key: value for key, value in whole.items() if key != "sha256"} | {"entries": [entry, entry]}
    evil["entries"] = [{**entry, "op": "\x1b[2Jcleared"}] * 2
    return {
        "nan": (text.replace('"latency_ms": 0', '"latency_ms": NaN, "x": 0', 1).encode(), "NaN"),
        "nested": (b"[" * 200_000, "not valid JSON"),
        "duplicate": (text.replace('"op":', '"op": "sum", "op":', 1).encode(), "twice"),
        "huge number": (text.replace('"latency_ms": 0', '"latency_ms": 1e999, "x": 0', 1).encode(), "not a valid"),
        "binary": (b"\x80\x81", "not a text file"),
        "not a table": (b"{}", "not a latency table"),
        "control characters": (json.dumps({**evil, "sha256": sha256_of(evil)}).encode(), r"\?\[2Jcleared"),
    }


@pytest.mark.parametrize("kind", list(hostile_tables({"entries": [{}]})))
def test_hostile_tables_are_refused_while_parsing(run: Run, tmp_path: Path, folder: Path, cpu: Path, kind: str) -> None:
    data, words = hostile_tables(json.loads(cpu.read_text()))[kind]
    rehash(folder, data)
    refuses_pull(run, folder, tmp_path, words)


def test_a_record_of_another_table_is_refused(run: Run, tmp_path: Path, folder: Path, other: Path) -> None:
    rehash(folder, other.read_bytes())  # which leaves the table's own sha256 as it was
    refuses_pull(run, folder, tmp_path, "not the table that its record names")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_bytes": MAX_BYTES + 1}, "file_bytes"),
        ({"file_bytes": 10**30}, "file_bytes"),
        ({"file_bytes": "12"}, "file_bytes"),
        ({"file_bytes": True}, "file_bytes"),
        ({"file_sha256": "../../../etc/passwd"}, "file_sha256"),
        ({"table_sha256": "0" * 63}, "table_sha256"),
        ({"pushed": "x" * 1000}, "pushed"),
        ({"surprise": 1}, "surprise"),
        ({"\x1b[2J": 1}, r"\?\[2J"),
        ({"version": 2}, "does not|not valid|version"),
        ({"description": {}}, "description"),
        ({"signature": {"key": "A" * 1000, "value": ""}}, "signature.key"),
        ({"pushed": "\ud800"}, "pushed"),
    ],
)
def test_hostile_records_are_refused(
    run: Run, tmp_path: Path, folder: Path, changes: dict[str, Any], words: str
) -> None:
    rewrite(folder, **changes)
    refuses_pull(run, folder, tmp_path, "index.json", words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("[]", "format"),
        ('{"format": "hwnas-shelf", "version": 2, "records": []}', "version 2.*update hwnas"),
        ('{"format": "hwnas-shelf", "version": 1, "records": [], "records": []}', "twice"),
        ('{"format": "hwnas-shelf", "version": 1, "records": NaN}', "NaN"),
        ('{"format": "hwnas-shelf", "version": 1, "records": {}}', "records"),
        ("[" * 200_000, "not valid JSON"),
        ('{"a":' * 200_000, "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
    ],
)
def test_hostile_indexes_are_refused(run: Run, tmp_path: Path, folder: Path, text: str, words: str) -> None:
    (folder / "index.json").write_text(text)
    refuses_pull(run, folder, tmp_path, "index.json", words)


def test_duplicate_names_in_an_index_are_refused(run: Run, tmp_path: Path, folder: Path) -> None:
    record = record_of(folder)
    (folder / "index.json").write_text(
        json.dumps({"format": "hwnas-shelf", "version": 1, "records": [record, record | {"file_sha256": "0" * 64}]})
    )
    refuses_pull(run, folder, tmp_path, "a name occurs twice")


@pytest.mark.slow
def test_many_small_values_do_not_fill_the_memory(run: Run, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "got.json"
    head, tail = b'{"format":"hwnas-latency-table","version":1,"entries":[', b"0]}"
    rehash(folder, head + b"[]," * ((MAX_BYTES - 100) // 3) + tail)

    def refuse(words: str) -> None:
        assert_one_clear_line(run("table", "pull", "cpu", folder, "--out", out), words)

    bounded(lambda: refuse("holds more than 4,000,000 values"), 3 * MAX_BYTES >> 20)
    (folder / "index.json").write_bytes(
        b'{"format":"hwnas-shelf","version":1,"records":[' + b"{}," * 5_000_000 + b"0]}"
    )
    bounded(lambda: refuse("holds more than 2,000,000 values"), 50)
    (folder / "index.json").write_bytes(b'{"format":"hwnas-shelf","version":1,"records":[' + b"{}," * 900_000 + b"{}]}")
    bounded(lambda: refuse("index.json is not valid"), 120)
    assert not out.exists()


@pytest.mark.parametrize("name", ["index.json", "tables", "records/cpu.json"])
def test_large_files_do_not_fill_the_memory(run: Run, tmp_path: Path, folder: Path, cpu: Path, name: str) -> None:
    file = next((folder / name).iterdir()) if name == "tables" else folder / name
    with file.open("r+b") as opened:
        opened.truncate(1 << 30)

    def pull_or_push() -> None:
        if name == "records/cpu.json":
            assert_one_clear_line(run("table", "push", cpu, folder), "larger than")
        else:
            words = "is longer than" if name == "tables" else "larger than"
            assert_one_clear_line(run("table", "pull", "cpu", folder, "--out", tmp_path / "got.json"), words)

    bounded(pull_or_push, 50)
    assert not (tmp_path / "got.json").exists()
