"""List the tables of shelves, and read all tables of a shelf."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec.registry
import pytest

from hwnas.errors import HwnasError
from hwnas.sharing import records, signing
from hwnas.sharing.listing import read_tables
from hwnas.sharing.push import push
from hwnas.sharing.records import Record
from hwnas.sharing.table_files import make_record
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line
from support.shelves import listed, record_of, rewrite


def test_list_shows_shipped_own_and_named_shelves(run: Run, tmp_path: Path, folder: Path, cpu: Path) -> None:
    run("table", "pull", "cpu", folder, "--out", tmp_path / "data" / "hwnas" / "tables" / "mine.json")
    result = run("table", "list", "--shelf", folder)
    assert result.exit_code == 0, result.output
    assert "amd-epyc-zen5-vm-onnxruntime" in result.stdout
    shelves = listed(run("table", "list", "--shelf", folder, "--json"))
    assert list(shelves) == ["latency_tables", "tables", "shelf"]
    assert list(shelves["tables"]) == ["mine"]
    assert shelves["shelf"]["cpu"]["description"] == shelves["tables"]["mine"]["description"]
    shipped = shelves["latency_tables"]["amd-epyc-zen5-vm-onnxruntime"]
    assert shipped["description"]["provenance"] == "measured"
    assert shipped["description"]["quality"]["nasbench201/16x5/3x32x32/10"]["mape"] < 5


def test_a_broken_table_in_a_plain_folder_is_listed_with_its_error(run: Run, tmp_path: Path, cpu: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "good.json").write_bytes(cpu.read_bytes())
    (plain / "bad.json").write_text("{")
    (plain / "notes.txt").write_text("no table")
    result = run("table", "list", "--shelf", plain)
    assert result.exit_code == 0
    assert "cannot be read: bad: bad.json is not valid JSON" in result.stdout
    tables = listed(run("table", "list", "--shelf", plain, "--json"))["plain"]
    assert {name: bool(table["error"]) for name, table in tables.items()} == {"good": False, "bad": True}


def test_a_folder_with_an_index_hides_no_other_table(run: Run, folder: Path, other: Path) -> None:
    (folder / "loose.json").write_bytes(other.read_bytes())
    tables = listed(run("table", "list", "--shelf", folder, "--json"))["shelf"]
    assert {name: bool(table["record"]) for name, table in tables.items()} == {"cpu": True, "loose": False}


def test_a_shelf_that_cannot_be_read_hides_no_other(run: Run, tmp_path: Path, folder: Path) -> None:
    result = run("table", "list", "--shelf", tmp_path / "none", "--shelf", "warp://x", "--shelf", folder)
    assert_one_clear_line(result, "warp://x")
    assert "none does not exist" in result.stderr
    assert "made up" in result.stdout
    result = run("table", "list", "--shelf", tmp_path / "none", "--shelf", folder, "--json")
    assert result.exit_code == 2
    assert "cpu" in listed(result)["shelf"]
    assert "does not exist" in json.loads(result.stdout)["shelves"][-2]["error"]


def test_an_own_shelf_elsewhere_is_listed(run: Run, cpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"memory://{uuid.uuid4()}"
    push(cpu, address, "remote")
    monkeypatch.setenv("HWNAS_SHELF", address)
    assert "remote" in run("table", "list").stdout
    fsspec.filesystem("memory").pipe_file(f"{address}/index.json", b"{")
    assert_one_clear_line(run("table", "list"), "index.json is not valid JSON")


def test_list_prints_no_control_characters(run: Run, folder: Path, made: LatencyTable) -> None:
    description = record_of(folder)["description"] | {"device": "\x1b[2J\u202egone"}
    rewrite(folder, description=description)
    result = run("table", "list", "--shelf", folder)
    assert "?[2J?gone" in result.stdout
    assert "\x1b" not in result.stdout


def test_records_print_and_parse_alike(cpu: Path) -> None:
    record = make_record(cpu.read_bytes(), "cpu", "cpu")
    assert records.parse_record(records.record_text(record), "x") == record
    assert records.parse_index(records.index_text(records.Index(records=[record])), "x").records == [record]
    assert records.parse_index(records.index_text(records.Index(records=[])), "x").records == []
    assert isinstance(record, Record)


@pytest.mark.slow
def test_sharing_needs_no_heavy_package(tmp_path: Path, folder: Path, cpu: Path) -> None:
    commands = [
        ["table", "list", "--shelf", str(folder)],
        ["table", "push", str(cpu), str(folder), "--name", "light"],
        ["table", "pull", "light", str(folder)],
        ["table", "keygen", str(tmp_path / "k.pem")],
    ]
    code = (
        "import sys; from hwnas.cli import app\n"
        f"for command in {commands!r}:\n"
        "    sys.argv = ['hwnas', *command]\n"
        "    try: app()\n    except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'numpy', 'scipy', 'onnx'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_whole_shelf_is_read_and_every_byte_of_it_checked(tmp_path: Path, folder: Path, other: Path) -> None:
    push(other, str(folder))
    tables = read_tables(str(folder), [])
    assert {name: table.source for name, table in tables.items()} == {"cpu": "", "other": "another machine"}
    (file,) = (f for f in (folder / "tables").iterdir() if b"another machine" in f.read_bytes())
    file.write_bytes(file.read_bytes().replace(b"another machine", b"another_machine"))
    with pytest.raises(HwnasError, match="was changed"):
        read_tables(str(folder), [])
    with pytest.raises(HwnasError, match="does not exist"):
        read_tables(str(tmp_path / "nowhere"), [])


def test_a_plain_folder_of_tables_is_read_and_a_broken_one_named(tmp_path: Path, cpu: Path, other: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in (cpu, other):
        (plain / file.name).write_bytes(file.read_bytes())
    assert list(read_tables(str(plain), [])) == ["cpu", "other"]
    (plain / "third.json").write_text("{}")
    with pytest.raises(HwnasError, match=r"third\.json"):
        read_tables(str(plain), [])


def test_only_signed_tables_are_taken_where_a_key_is_trusted(tmp_path: Path, folder: Path) -> None:
    signing.make_keys(tmp_path / "key.pem")
    trusted = signing.trusted_keys([str(tmp_path / "key.pem.pub")])
    with pytest.raises(HwnasError, match="unsigned"):
        read_tables(str(folder), trusted)
