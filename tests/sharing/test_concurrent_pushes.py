"""Several processes that push to one shelf at once."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.sharing import records, transport
from hwnas.sharing.index import read_index
from hwnas.sharing.push import push
from hwnas.sharing.table_files import make_record
from hwnas.sharing.transport import open_registry
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line
from support.shelves import files_in, push_at_once, record_of, tables_of


@pytest.mark.slow
def test_two_processes_that_push_fifty_tables_each_lose_none(tmp_path: Path, made: LatencyTable) -> None:
    files = tables_of(tmp_path / "tables", made, 100)
    lots = [[f"{file}={file.stem}" for file in files[start::2]] for start in (0, 1)]
    said = push_at_once(str(tmp_path / "shelf"), *lots)
    assert said == [["pushed"] * 50] * 2
    index = records.parse_index((tmp_path / "shelf" / "index.json").read_bytes(), "index").records
    assert [record.name for record in index] == [file.stem for file in files]
    assert [record.file_sha256 for record in index] == [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    assert len(files_in(tmp_path / "shelf")) == 201


@pytest.mark.slow
def test_one_of_two_simultaneous_pushes_gets_a_name(tmp_path: Path, made: LatencyTable) -> None:
    files = tables_of(tmp_path / "tables", made, 2)
    names = [f"n{number:02}" for number in range(20)]
    first, second = push_at_once(str(tmp_path / "shelf"), *([f"{file}={name}" for name in names] for file in files))
    index = records.parse_index((tmp_path / "shelf" / "index.json").read_bytes(), "index").records
    assert [record.name for record in index] == names
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    for record, *answers in zip(index, first, second, strict=True):
        winner = hashes.index(record.file_sha256)
        assert answers[winner] == "pushed"
        assert "another table named" in answers[1 - winner]


def test_push_reports_a_name_taken_between_read_and_write(
    folder: Path, other: Path, cpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment that two processes seldom hit: the record is not there yet when it is looked for."""
    before, read, hidden = (folder / "records/cpu.json").read_bytes(), transport.read, ["records/cpu.json"]

    def blind_once(opened: transport.TableRegistry, path: str, limit: int) -> bytes | None:
        return (hidden.remove(path), None)[1] if path in hidden else read(opened, path, limit)

    monkeypatch.setattr(transport, "read", blind_once)
    with pytest.raises(HwnasError, match="another table named cpu"):
        push(other, str(folder), "cpu")
    assert (folder / "records/cpu.json").read_bytes() == before
    hidden.append("records/cpu.json")
    assert push(cpu, str(folder)).state == "already there"


def test_a_record_added_while_the_index_is_written_is_indexed(
    folder: Path, cpu: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another push adds its record after this one has listed, and is killed before it writes an index."""
    replace = transport.replace

    def late(opened: transport.TableRegistry, path: str, data: bytes) -> None:
        if path == "index.json" and not (folder / "records/late.json").exists():
            (folder / "records/late.json").write_text(json.dumps(record_of(folder) | {"name": "late"}))
        replace(opened, path, data)

    monkeypatch.setattr(transport, "replace", late)
    push(other, str(folder))
    assert [record.name for record in read_index(open_registry(str(folder))).records] == [
        "cpu",
        "late",
        "other",
    ]


def test_the_next_push_repairs_an_interrupted_one(folder: Path, cpu: Path) -> None:
    whole = files_in(folder)
    (folder / "index.json").unlink()
    next((folder / "tables").iterdir()).write_text("damaged")
    assert push(cpu, str(folder)).state == "already there"
    assert files_in(folder) == whole


def test_broken_records_are_left_out_of_the_index_with_a_warning(run: Run, folder: Path, other: Path) -> None:
    (folder / "records" / "evil.json").write_text(json.dumps(record_of(folder) | {"name": "cpu"}))
    (folder / "records" / "half.json").write_text("{")
    (folder / "records" / "empty.json").write_text("")
    with (folder / "records" / "vast.json").open("wb") as file:
        file.truncate(1 << 30)
    result = run("table", "push", other, folder)
    assert result.exit_code == 0
    for name in ("evil", "half", "empty", "vast"):
        assert f"records/{name}.json" in result.stderr
    assert [r.name for r in read_index(open_registry(str(folder))).records] == ["cpu", "other"]
    assert_one_clear_line(run("table", "push", other, folder, "--name", "half"), "half.json is not valid JSON")
    assert "replaced" in run("table", "push", other, folder, "--name", "half", "--replace").stdout


def test_push_to_a_full_shelf_is_an_error(
    run: Run, tmp_path: Path, folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(folder)
    monkeypatch.setattr(records, "MAX_RECORDS", 1)
    assert_one_clear_line(run("table", "push", other, folder), "full")
    assert files_in(folder) == before


def test_push_reports_a_name_that_another_push_took_at_the_same_time(
    cpu: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"memory://{uuid.uuid4()}"
    create = transport.create

    def both(opened: transport.TableRegistry, path: str, data: bytes) -> bool:
        done = create(opened, path, data)
        if path == "records/cpu.json":
            theirs = make_record(other.read_bytes(), "cpu", "other")
            transport.replace(opened, path, records.record_text(theirs))
        return done

    monkeypatch.setattr(transport, "create", both)
    with pytest.raises(HwnasError, match="at the same time"):
        push(cpu, address)
    monkeypatch.setattr(transport, "create", create)
    assert push(other, address, "cpu").state == "already there"


def test_create_reads_the_file_when_the_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_registry(f"memory://{uuid.uuid4()}")
    write = type(opened.filesystem).pipe_file

    def answer_lost(self: Any, path: str, value: bytes, mode: str = "overwrite") -> None:
        if not self.exists(path):
            write(self, path, value)
        raise OSError(22, "At least one of the pre-conditions you specified did not hold")

    monkeypatch.setattr(type(opened.filesystem), "pipe_file", answer_lost)
    assert transport.create(opened, "a.json", b"mine")
    assert not transport.create(opened, "a.json", b"theirs")
    assert transport.read(opened, "a.json", 100) == b"mine"


@pytest.mark.parametrize("links", [True, False])
def test_only_one_writer_gets_a_name_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr("os.link", lambda *paths: (_ for _ in ()).throw(PermissionError(1, "no hard links")))
    assert transport.write_file(tmp_path / "a", b"one", replace=False)
    assert not transport.write_file(tmp_path / "a", b"two", replace=False)
    assert files_in(tmp_path) == {"a": b"one"}
    assert transport.write_file(tmp_path / "a", b"two", replace=True)
    assert files_in(tmp_path) == {"a": b"two"}


@pytest.mark.parametrize("step", ["os.replace", "os.fdopen", "tempfile.mkstemp"])
def test_a_folder_that_cannot_be_written_is_one_line(
    run: Run, tmp_path: Path, folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = files_in(folder)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(step, full)
        result = run("table", "push", other, folder)
    assert_one_clear_line(result, str(folder), "No space left")
    added = set(files_in(folder)) - set(before)
    assert not [name for name in added if name.endswith(".tmp")]
    if step != "os.replace":  # which the index alone needs: what it lacks is said, and the next push puts it in
        assert not [name for name in added if name.startswith("records")]
    else:
        assert "not in its index" in result.stderr
    assert run("table", "push", other, folder).exit_code == 0
    assert [r.name for r in read_index(open_registry(str(folder))).records] == ["cpu", "other"]
