"""Shelves: what is pushed comes back to the byte; two that push at once lose nothing; nothing hostile gets through."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import socket
import subprocess
import sys
import threading
import tracemalloc
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec.registry
import pytest

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.sharing import pull, records, signing, transport
from hwnas.sharing.index import read_index
from hwnas.sharing.listing import read_tables
from hwnas.sharing.push import push
from hwnas.sharing.records import Record
from hwnas.sharing.signing import TrustedKey
from hwnas.sharing.table_files import make_record
from hwnas.sharing.transport import open_registry
from hwnas.spaces import SizedSpace
from hwnas.tables.io import MAX_BYTES, read_table, table_text, write_table
from hwnas.tables.schema import Additivity, LatencyTable, Quality
from support.command import Run, assert_one_clear_line, hwnas_process
from support.spaces import NB201, SMALL
from support.tables import make_table

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def made() -> LatencyTable:
    return make_table(SizedSpace(NB201, SMALL["nasbench201"]))


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has pulled nothing and trusts nobody."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for variable in ("HWNAS_SHELF", "HWNAS_TRUSTED_KEYS", "HWNAS_SIGNING_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def cpu(tmp_path: Path, made: LatencyTable) -> Path:
    write_table(tmp_path / "cpu.json", made)
    return tmp_path / "cpu.json"


@pytest.fixture
def other(tmp_path: Path, made: LatencyTable) -> Path:
    write_table(tmp_path / "other.json", made.model_copy(update={"source": "another machine"}))
    return tmp_path / "other.json"


@pytest.fixture
def folder(tmp_path: Path, cpu: Path) -> Path:
    """A shelf that holds ``cpu``."""
    push(cpu, str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def files_in(folder: Path) -> Files:
    """Every file below, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def record_of(folder: Path, name: str = "cpu") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "records" / f"{name}.json").read_text())
    return content


def rewrite(folder: Path, **changes: Any) -> None:
    """Give the shelf's one record other contents, in the index too."""
    record = record_of(folder) | changes
    (folder / "records" / "cpu.json").write_text(json.dumps(record))
    (folder / "index.json").write_text(json.dumps({"format": "hwnas-shelf", "version": 1, "records": [record]}))


def rehash(folder: Path, data: bytes) -> None:
    """Put any bytes in the table's place, with a record that states them as they are."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / "tables" / f"{digest}.json").write_bytes(data)
    rewrite(folder, file_sha256=digest, file_bytes=len(data))


def refuses_pull(run: Run, address: object, tmp_path: Path, *words: str) -> None:
    """One clear line, and nothing is written anywhere."""
    before = files_in(tmp_path)
    assert_one_clear_line(run("table", "pull", "cpu", address, "--out", tmp_path / "got" / "cpu.json"), *words)
    assert files_in(tmp_path) == before


# Folders and fsspec URLs


@pytest.mark.parametrize("kind", ["folder", "file", "memory"])
def test_a_table_comes_back_to_the_byte(run: Run, tmp_path: Path, cpu: Path, kind: str) -> None:
    address = {
        "folder": str(tmp_path / "shelf"),
        "file": f"file://{tmp_path}/shelf",
        "memory": f"memory://{uuid.uuid4()}/shelf",
    }[kind]
    pushed = run("table", "push", cpu, address, "--json")
    assert pushed.exit_code == 0, pushed.output
    assert json.loads(pushed.stdout)["state"] == "pushed"
    assert json.loads(pushed.stdout)["record"]["table_sha256"] == json.loads(cpu.read_text())["sha256"]
    got = run("table", "pull", "cpu", address, "--out", tmp_path / "got" / "cpu.json")
    assert got.exit_code == 0, got.output
    assert "unsigned" in got.stderr
    assert files_in(tmp_path / "got") == {"cpu.json": cpu.read_bytes()}
    again = run("table", "push", cpu, address)
    assert again.exit_code == 0
    assert "already there" in again.stdout


def test_a_shelf_holds_what_it_should(folder: Path, cpu: Path, made: LatencyTable) -> None:
    digest = hashlib.sha256(cpu.read_bytes()).hexdigest()
    assert set(files_in(folder)) == {"index.json", "records/cpu.json", f"tables/{digest}.json"}
    record = record_of(folder)
    index = json.loads((folder / "index.json").read_text())
    assert index == {"format": "hwnas-shelf", "version": 1, "records": [record]}
    assert (record["file_sha256"], record["file_bytes"]) == (digest, cpu.stat().st_size)
    assert record["table_sha256"] == read_table(cpu).sha256
    assert record["description"]["device"] == made.device.name


def test_a_table_older_than_a_field_is_shared_as_it_states_itself(run: Run, tmp_path: Path, cpu: Path) -> None:
    content = json.loads(cpu.read_text())
    del content["sha256"], content["protocol"]["stolen"]
    cpu.write_text(json.dumps({**content, "sha256": sha256_of(content)}))
    assert read_table(cpu).sha256 != sha256_of(content)
    assert run("table", "push", cpu, tmp_path / "shelf").exit_code == 0
    assert record_of(tmp_path / "shelf")["table_sha256"] == sha256_of(content)
    assert run("table", "pull", "cpu", tmp_path / "shelf").exit_code == 0


def test_a_description_tells_of_networks_and_their_quality(made: LatencyTable) -> None:
    report = Additivity(
        networks=9, mape=1.25, within_5_percent=1, within_10_percent=1, kendall_tau=None, worst=2, bias=0, floor=None
    )
    additivity = {f"space/{number:03}": report for number in range(60)}
    told = records.describe(made.model_copy(update={"quality": Quality(additivity=additivity, noise=["loud"])}))
    assert told.noisy
    assert told.networks == sorted(additivity)[: records.MAX_NETWORKS]
    assert told.quality["space/003"].model_dump() == {"mape": 1.25, "kendall_tau": None}


def test_a_taken_name_is_never_overwritten_silently(run: Run, folder: Path, other: Path) -> None:
    before = files_in(folder)
    push = ("table", "push", other, folder, "--name", "cpu")
    assert_one_clear_line(run(*push), "another table named cpu", "made up, onnxruntime 0", "--replace", "--name")
    assert files_in(folder) == before
    assert "replaced" in run(*push, "--replace").stdout
    assert record_of(folder)["file_sha256"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert set(before) < set(files_in(folder)), "what was pulled by its hash before is still there"
    assert "already there" in run(*push, "--replace").stdout


def test_pulling_never_overwrites_another_file(run: Run, tmp_path: Path, folder: Path, cpu: Path, other: Path) -> None:
    out = tmp_path / "out.json"
    out.write_bytes(other.read_bytes())
    pull = ("table", "pull", "cpu", folder, "--out", out)
    assert_one_clear_line(run(*pull), "out.json", "--force")
    assert out.read_bytes() == other.read_bytes()
    assert run(*pull, "--force").exit_code == 0
    assert out.read_bytes() == cpu.read_bytes()
    assert "already there" in run(*pull).stdout
    assert_one_clear_line(run(*pull[:-1], tmp_path), "--out")


def test_a_file_that_appears_during_a_pull_stays(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "got" / "out.json"
    fetch = pull.fetch_table

    def meanwhile(*arguments: Any) -> bytes:
        out.parent.mkdir()
        out.write_text("mine")
        return fetch(*arguments)

    monkeypatch.setattr(pull, "fetch_table", meanwhile)
    with pytest.raises(HwnasError, match="another file"):
        pull.pull("cpu", str(folder), [], out)
    assert files_in(out.parent) == {"out.json": b"mine"}


def test_by_default_a_pull_goes_to_the_users_own_shelf(
    run: Run, tmp_path: Path, folder: Path, cpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("table", "pull", "cpu", folder).exit_code == 0
    assert (tmp_path / "data" / "hwnas" / "tables" / "cpu.json").read_bytes() == cpu.read_bytes()
    monkeypatch.setenv("HWNAS_SHELF", str(tmp_path / "mine"))
    assert run("table", "pull", "cpu", folder).exit_code == 0
    assert files_in(tmp_path / "mine") == {"cpu.json": cpu.read_bytes()}
    monkeypatch.setenv("HWNAS_SHELF", "memory://mine")
    assert_one_clear_line(run("table", "pull", "cpu", folder), "memory://mine", "--out")


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "a..b", ".hidden", "", "index", "a" * 101, "a\n", "ö"])
def test_names_that_could_be_paths_are_refused(run: Run, tmp_path: Path, cpu: Path, folder: Path, name: str) -> None:
    before = files_in(tmp_path)
    assert_one_clear_line(run("table", "push", cpu, folder, "--name", name), "cannot name a table", "--name")
    assert_one_clear_line(run("table", "pull", name, folder), "cannot name a table")
    assert files_in(tmp_path) == before
    rewrite(folder, name=name)
    refuses_pull(run, folder, tmp_path, "index.json is not valid", "name")


def test_a_name_that_is_not_there_gets_close_ones(run: Run, folder: Path) -> None:
    result = run("table", "pull", "cqu", folder)
    assert_one_clear_line(result, "no table named cqu", "it has cpu", f"hwnas table list --shelf {folder}")


def test_only_whole_tables_are_pushed(run: Run, tmp_path: Path, cpu: Path) -> None:
    cpu.write_text(cpu.read_text().replace('"latency_ms":0', '"latency_ms":1', 1))
    assert_one_clear_line(run("table", "push", cpu, tmp_path / "shelf"), "sha256")
    assert_one_clear_line(run("table", "push", tmp_path / "none.json", tmp_path / "shelf"), "does not exist")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    assert_one_clear_line(run("table", "push", tmp_path / "huge.json", tmp_path / "shelf"), "larger than")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_BYTES
    assert not (tmp_path / "shelf").exists()


# At once

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
    """One process a lot of ``file=name``, let go at the same moment; what each said of its pushes."""
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


def test_two_that_push_fifty_tables_each_at_once_lose_none(tmp_path: Path, made: LatencyTable) -> None:
    files = tables_of(tmp_path / "tables", made, 100)
    lots = [[f"{file}={file.stem}" for file in files[start::2]] for start in (0, 1)]
    said = push_at_once(str(tmp_path / "shelf"), *lots)
    assert said == [["pushed"] * 50] * 2
    index = records.parse_index((tmp_path / "shelf" / "index.json").read_bytes(), "index").records
    assert [record.name for record in index] == [file.stem for file in files]
    assert [record.file_sha256 for record in index] == [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    assert len(files_in(tmp_path / "shelf")) == 201


def test_one_of_two_that_push_a_name_at_once_gets_it(tmp_path: Path, made: LatencyTable) -> None:
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


def test_a_name_taken_between_look_and_write_is_told(
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


def test_a_record_that_comes_while_the_index_is_written_is_in_it(
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


def test_the_next_push_mends_an_interrupted_one(folder: Path, cpu: Path) -> None:
    whole = files_in(folder)
    (folder / "index.json").unlink()
    next((folder / "tables").iterdir()).write_text("damaged")
    assert push(cpu, str(folder)).state == "already there"
    assert files_in(folder) == whole


def test_broken_records_are_left_out_of_the_index_and_told(run: Run, folder: Path, other: Path) -> None:
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


def test_a_full_shelf_takes_no_more(
    run: Run, tmp_path: Path, folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(folder)
    monkeypatch.setattr(records, "MAX_RECORDS", 1)
    assert_one_clear_line(run("table", "push", other, folder), "full")
    assert files_in(folder) == before


def test_a_backend_that_lets_both_write_a_name_tells_the_one_that_lost(
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


def test_create_asks_what_is_there_when_the_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_folder_gives_a_name_to_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
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


# Signatures


@pytest.fixture
def key(run: Run, tmp_path: Path) -> Path:
    assert run("table", "keygen", tmp_path / "key.pem").exit_code == 0
    return tmp_path / "key.pem"


def test_keygen_writes_two_files_and_overwrites_none(run: Run, tmp_path: Path) -> None:
    result = run("table", "keygen", tmp_path / "a.pem")
    public = (tmp_path / "a.pem.pub").read_text()
    assert len(base64.b64decode(public)) == 32
    assert public.strip() in result.stdout
    assert "keys" in result.stdout
    assert (tmp_path / "a.pem").stat().st_mode & 0o777 == 0o600
    before = files_in(tmp_path)
    assert_one_clear_line(run("table", "keygen", tmp_path / "a.pem"), "a.pem already exists")
    (tmp_path / "b.pem.pub").write_text("x")
    assert_one_clear_line(run("table", "keygen", tmp_path / "b.pem"), "b.pem.pub already exists")
    assert_one_clear_line(run("table", "keygen", tmp_path / "none" / "c.pem"), "cannot write")
    assert_one_clear_line(run("table", "keygen", "."), "already exists")
    assert files_in(tmp_path) == {**before, "b.pem.pub": b"x"}


def test_a_signature_of_a_trusted_key_passes_without_a_remark(
    run: Run, tmp_path: Path, cpu: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_SIGNING_KEY", str(key))
    assert "signed by" in run("table", "push", cpu, tmp_path / "shelf").stdout
    public = key.with_name("key.pem.pub")
    pull = ("table", "pull", "cpu", tmp_path / "shelf", "--out", tmp_path / "got.json")
    assert "a key that you have not marked as trusted" in run(*pull).stderr
    for trust in (public, public.read_text().strip()):
        result = run(*pull, "--trust", trust)
        assert (result.exit_code, result.stderr) == (0, "")
    monkeypatch.setenv("HWNAS_TRUSTED_KEYS", f"{public}, {base64.b64encode(bytes(32)).decode()}")
    assert run(*pull).stderr == ""
    monkeypatch.delenv("HWNAS_TRUSTED_KEYS")
    (tmp_path / "config" / "hwnas" / "keys").mkdir(parents=True)
    (tmp_path / "config" / "hwnas" / "keys" / "me.pub").write_text(public.read_text())
    assert run(*pull).stderr == ""
    assert json.loads(run(*pull, "--json").stdout)["trusted"] is True


def test_with_trusted_keys_only_their_tables_are_taken(run: Run, tmp_path: Path, cpu: Path, key: Path) -> None:
    run("table", "keygen", tmp_path / "stranger.pem")
    run("table", "push", cpu, tmp_path / "shelf")
    run("table", "push", cpu, tmp_path / "shelf", "--name", "theirs", "--key", tmp_path / "stranger.pem")
    before = files_in(tmp_path)
    trust = ("--trust", tmp_path / "key.pem.pub")
    assert_one_clear_line(run("table", "pull", "cpu", tmp_path / "shelf", *trust), "unsigned", "--trust", "--key")
    theirs = (tmp_path / "stranger.pem.pub").read_text().strip().replace("+", r"\+")
    result = run("table", "pull", "theirs", tmp_path / "shelf", *trust)
    assert_one_clear_line(result, "not one of the keys you trust", f"--trust {theirs}")
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"pushed": "2030-01-01T00:00:00Z"},
        {"file_sha256": "0" * 64},
        {"signature": {"key": base64.b64encode(bytes(32)).decode()}},
        {"signature": {"value": base64.b64encode(bytes(64)).decode()}},
        {"signature": {"value": "not base64"}},
        {"signature": {"key": "AAAA"}},
        {"description": {"provenance": "measured"}},
    ],
)
def test_a_signature_that_does_not_verify_is_always_refused(
    run: Run, tmp_path: Path, cpu: Path, key: Path, change: dict[str, Any]
) -> None:
    run("table", "push", cpu, tmp_path / "shelf", "--key", key)
    whole = record_of(tmp_path / "shelf")
    rewrite(tmp_path / "shelf", **{k: {**whole[k], **v} if isinstance(v, dict) else v for k, v in change.items()})
    refuses_pull(run, tmp_path / "shelf", tmp_path, "signature does not match the record of cpu", "do not use")


def test_a_signed_record_cannot_take_another_name(run: Run, tmp_path: Path, cpu: Path, key: Path) -> None:
    run("table", "push", cpu, tmp_path / "shelf", "--name", "slow", "--key", key)
    record = record_of(tmp_path / "shelf", "slow") | {"name": "cpu"}
    (tmp_path / "shelf/index.json").write_text(json.dumps({"format": "hwnas-shelf", "version": 1, "records": [record]}))
    refuses_pull(run, tmp_path / "shelf", tmp_path, "does not match")


def test_a_signature_is_added_to_what_is_there_only_when_asked(run: Run, folder: Path, cpu: Path, key: Path) -> None:
    push = ("table", "push", cpu, folder)
    assert_one_clear_line(run(*push, "--key", key), "not signed with this key", "--replace")
    assert "replaced" in run(*push, "--key", key, "--replace").stdout
    assert record_of(folder)["signature"]["key"] == key.with_name("key.pem.pub").read_text().strip()
    assert "already there" in run(*push).stdout, "and an unsigned push does not take it away"
    assert record_of(folder)["signature"]


def test_keys_that_are_none_are_refused_in_one_line(run: Run, tmp_path: Path, cpu: Path, folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"secret")
    keys = {
        "ec.pem": ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption()),
        "locked.pem": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked),
        "text.pem": b"not a key",
    }
    for name, data in keys.items():
        (tmp_path / name).write_bytes(data)
        words = "passphrase" if name == "locked.pem" else "not an Ed25519 private key"
        assert_one_clear_line(run("table", "push", cpu, folder, "--key", tmp_path / name), name, words)
    assert_one_clear_line(run("table", "push", cpu, folder, "--key", tmp_path / "none.pem"), "none.pem", "keygen")
    pull = ("table", "pull", "cpu", folder)
    assert_one_clear_line(run(*pull, "--trust", "AAAA"), "AAAA.*neither a public key nor a file", "keygen")
    assert_one_clear_line(run(*pull, "--trust", tmp_path / "text.pem"), "does not hold a public key")
    (tmp_path / "config" / "hwnas" / "keys").mkdir(parents=True)
    (tmp_path / "config" / "hwnas" / "keys" / "bad.pub").write_text("not a key")
    assert_one_clear_line(run(*pull), "bad.pub does not hold a public key")


def test_trust_is_by_key_not_by_spelling(cpu: Path, key: Path) -> None:
    record = signing.sign(make_record(cpu.read_bytes(), "cpu", "cpu"), signing.read_key(key))
    public = base64.b64decode(key.with_name("key.pem.pub").read_text())
    assert signing.signer(record) == public
    assert signing.check_trust(record, [TrustedKey(bytes(32), "x"), TrustedKey(public, "y")]) == ""
    assert signing.signer(record.model_copy(update={"signature": None})) is None


# Hostile shelves


def test_a_changed_byte_is_found(run: Run, tmp_path: Path, folder: Path) -> None:
    file = next((folder / "tables").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refuses_pull(run, folder, tmp_path, "was changed", "do not use")


def test_a_table_that_is_shorter_longer_or_missing_is_found(run: Run, tmp_path: Path, folder: Path) -> None:
    file = next((folder / "tables").iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refuses_pull(run, folder, tmp_path, "breaks off")
    file.write_bytes(whole + b" ")
    refuses_pull(run, folder, tmp_path, "goes on after")
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
def test_hostile_tables_die_where_they_are_parsed(run: Run, tmp_path: Path, folder: Path, cpu: Path, kind: str) -> None:
    data, words = hostile_tables(json.loads(cpu.read_text()))[kind]
    rehash(folder, data)
    refuses_pull(run, folder, tmp_path, words)


def test_a_record_cannot_pass_one_table_off_as_another(run: Run, tmp_path: Path, folder: Path, other: Path) -> None:
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


def test_an_index_names_nothing_twice(run: Run, tmp_path: Path, folder: Path) -> None:
    record = record_of(folder)
    (folder / "index.json").write_text(
        json.dumps({"format": "hwnas-shelf", "version": 1, "records": [record, record | {"file_sha256": "0" * 64}]})
    )
    refuses_pull(run, folder, tmp_path, "a name occurs twice")


def bounded(call: Callable[[], object], megabytes: int) -> None:
    tracemalloc.start()
    try:
        call()
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()


def test_many_small_values_take_no_gigabyte(run: Run, tmp_path: Path, folder: Path) -> None:
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
def test_a_gigabyte_takes_no_gigabyte(run: Run, tmp_path: Path, folder: Path, cpu: Path, name: str) -> None:
    file = next((folder / name).iterdir()) if name == "tables" else folder / name
    with file.open("r+b") as opened:
        opened.truncate(1 << 30)

    def pull_or_push() -> None:
        if name == "records/cpu.json":
            assert_one_clear_line(run("table", "push", cpu, folder), "larger than")
        else:
            words = "goes on after" if name == "tables" else "larger than"
            assert_one_clear_line(run("table", "pull", "cpu", folder, "--out", tmp_path / "got.json"), words)

    bounded(pull_or_push, 50)
    assert not (tmp_path / "got.json").exists()


# Over http


Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Web:
    """A web server that serves a folder, and answers some paths in its own way."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append(self.path)
                path = self.path.lstrip("/")
                data = (folder / path).read_bytes() if (folder / path).is_file() else b""
                self.close_connection = True
                try:
                    if answer := web.answers.get(path.split("/")[0]):
                        answer(self, data)
                    elif not data:
                        self.send_error(404)
                    else:
                        send(self, len(data), data)
                except OSError:
                    pass  # the reader had enough

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def send(handler: BaseHTTPRequestHandler, length: int | None, data: bytes, **headers: str) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)


def endless(length: int | None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        send(handler, length, data)
        while True:
            handler.wfile.write(b" " * (1 << 16))

    return answer


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    served = Web(folder)
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def test_a_table_comes_over_http(run: Run, tmp_path: Path, cpu: Path, web: Web) -> None:
    result = run("table", "pull", "cpu", web.url, "--out", tmp_path / "got.json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "got.json").read_bytes() == cpu.read_bytes()
    digest = hashlib.sha256(cpu.read_bytes()).hexdigest()
    assert web.asked == ["/index.json", f"/tables/{digest}.json"], "one request a file"
    assert "cpu" in run("table", "list", "--shelf", f"{web.url}/").stdout


def test_nothing_is_pushed_over_http(run: Run, web: Web, cpu: Path) -> None:
    assert_one_clear_line(
        run("table", "push", cpu, web.url), re_escape(web.url), "can only be read", "folder or bucket"
    )
    assert web.asked == []


def re_escape(url: str) -> str:
    return url.replace(".", r"\.")


ANSWERS: dict[str, tuple[Answer, str]] = {
    "truncated": (lambda h, data: send(h, len(data), data[: len(data) // 2]), "cannot be read.*[Pp]ayload"),
    "truncated without a length": (lambda h, data: send(h, None, data[: len(data) // 2]), "breaks off|not valid JSON"),
    "a length too small": (lambda h, data: send(h, len(data) // 2, data), "breaks off|not valid JSON|Data after"),
    "a length too large": (lambda h, data: send(h, 1 << 40, data), "[Pp]ayload|goes on"),
    "a changed byte": (lambda h, data: send(h, len(data), data.replace(b"made up", b"made Up", 1)), "was changed"),
    "endless": (endless(None), "goes on after|larger than"),
    "endless with a lie": (endless(1 << 40), "goes on after|larger than"),
    "refused": (lambda h, data: h.send_error(403), "403"),
    "broken": (lambda h, data: h.send_error(500), "500"),
    "gone": (lambda h, data: h.send_error(404), "is missing|is not a shelf"),
    "no answer": (lambda h, data: None, "[Dd]isconnected"),
    "no http": (lambda h, data: (h.wfile.write(b"\x00\x01garbage\r\n\r\n"), None)[1], "cannot be read"),
    "in circles": (lambda h, data: redirect(h), "[Rr]edirect"),
    "a bomb": (lambda h, data: bomb(h), "goes on after|not a text file|breaks off|was changed"),
}


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.send_header("Connection", "close")
    handler.end_headers()


BOMB = gzip.compress(bytes(200 << 20), compresslevel=1)


def bomb(handler: BaseHTTPRequestHandler) -> None:
    send(handler, len(BOMB), BOMB, Content_Encoding="gzip")


@pytest.mark.parametrize("part", ["index.json", "tables"])
@pytest.mark.parametrize("kind", list(ANSWERS))
def test_a_bad_server_is_one_line(run: Run, tmp_path: Path, web: Web, kind: str, part: str) -> None:
    web.answers[part], words = ANSWERS[kind]
    if (kind, part) == ("a changed byte", "index.json"):
        assert run("table", "pull", "cpu", web.url).exit_code == 0, "nothing proves an unsigned description"
        return
    bounded(lambda: refuses_pull(run, web.url, tmp_path, re_escape(web.url), words), 70)


def test_a_server_that_stalls_is_given_up(run: Run, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_S", 0.2)
    release = threading.Event()

    def stall(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        send(handler, len(data), data[:100])
        release.wait(20)

    web.answers["tables"] = stall
    refuses_pull(run, web.url, tmp_path, "cannot be read", "[Tt]imeout")
    release.set()


def test_no_network_is_one_line(run: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    refuses_pull(run, f"http://127.0.0.1:{port}/x", tmp_path, f"127.0.0.1:{port}/x cannot be read", "network")
    refuses_pull(run, f"http://me:secret@127.0.0.1:{port}/x", tmp_path, r"//\*\*\*@127")
    assert "secret" not in run("table", "pull", "cpu", f"http://me:secret@127.0.0.1:{port}/x").output


# On S3


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, and an environment in which s3:// is the server on this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    name = f"tables-{uuid.uuid4()}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{name}", method="PUT")).close()
    return f"s3://{name}"


def test_a_table_comes_back_from_s3(run: Run, tmp_path: Path, cpu: Path, other: Path, bucket: str) -> None:
    address = f"{bucket}/shelf"
    assert_one_clear_line(run("table", "pull", "cpu", address), "is not a shelf")
    pushed = run("table", "push", cpu, address)
    assert pushed.exit_code == 0, pushed.output
    assert "already there" in run("table", "push", cpu, address).stdout
    assert_one_clear_line(run("table", "push", other, address, "--name", "cpu"), "another table named cpu", "--replace")
    got = run("table", "pull", "cpu", address, "--out", tmp_path / "got.json")
    assert got.exit_code == 0, got.output
    assert (tmp_path / "got.json").read_bytes() == cpu.read_bytes()
    assert "replaced" in run("table", "push", other, address, "--name", "cpu", "--replace").stdout
    listed = json.loads(run("table", "list", "--shelf", address, "--json").stdout)["shelves"][-1]
    assert [(table["name"], table["error"]) for table in listed["tables"]] == [("cpu", "")]
    assert listed["tables"][0]["record"]["file_sha256"] == hashlib.sha256(other.read_bytes()).hexdigest()


def test_s3_gives_a_name_to_one_writer(bucket: str) -> None:
    """Without looking first: the server decides."""
    one, two = open_registry(bucket), open_registry(bucket)
    assert transport.create(one, "records/a.json", b"one")
    assert not transport.create(two, "records/a.json", b"two")
    assert transport.read(two, "records/a.json", 10) == b"one"
    assert transport.read(two, "records/a.json", 1) == b"on", "no more than asked for"
    assert transport.list_files(one, "records") == {"a.json": 3}
    assert transport.create(two, "records/b.json", b"two")
    assert transport.list_files(one, "records") == {"a.json": 3, "b.json": 3}, "listings are not remembered"


def test_two_that_push_to_s3_at_once_lose_none(tmp_path: Path, made: LatencyTable, bucket: str) -> None:
    files = tables_of(tmp_path / "tables", made, 16)
    lots = [[f"{file}={file.stem}" for file in files[start::2]] for start in (0, 1)]
    assert push_at_once(f"{bucket}/shelf", *lots) == [["pushed"] * 8] * 2
    index = read_index(open_registry(f"{bucket}/shelf")).records
    assert [record.name for record in index] == [file.stem for file in files]


def test_what_s3_refuses_is_one_line(
    run: Run, tmp_path: Path, cpu: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_clear_line(run("table", "push", cpu, "s3://no-such-bucket/x"), "s3://no-such-bucket/x does not exist")
    refuses_pull(run, "s3://no-such-bucket/x", tmp_path, "s3://no-such-bucket/x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refuses_pull(run, bucket, tmp_path, "no credentials", "AWS_ACCESS_KEY_ID", "FSSPEC_S3_ANON")
    assert_one_clear_line(run("table", "push", cpu, bucket), "no credentials")


def test_a_public_bucket_is_read_without_credentials(
    tmp_path: Path, cpu: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(cpu, bucket)
    opened = open_registry(bucket)
    for file in opened.filesystem.find(opened.root):
        opened.filesystem.chmod(file, "public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    process = hwnas_process("table", "pull", "cpu", bucket, "--out", tmp_path / "got.json")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert (tmp_path / "got.json").read_bytes() == cpu.read_bytes()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [("AccessDenied", 403, "access denied"), ("SomethingNew", 400, "cannot be read")],
)
def test_errors_of_s3_are_one_line(
    run: Run,
    tmp_path: Path,
    cpu: Path,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    status: int,
    words: str,
) -> None:
    from botocore.exceptions import ClientError
    from s3fs import S3FileSystem

    async def refuse(*arguments: Any, **options: Any) -> None:
        raise ClientError(
            {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "X"
        )

    monkeypatch.setattr(S3FileSystem, "_call_s3", refuse)
    refuses_pull(run, bucket, tmp_path, words, bucket)
    assert_one_clear_line(run("table", "push", cpu, bucket), words, bucket)


# Addresses


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("warp://x/y", "no package knows the protocol of shelf warp://x/y"),
        ("", "is not a shelf"),
        ("simplecache::http://127.0.0.1:1/x", "is not a shelf"),
        ("http:///", "http:///"),
    ],
)
def test_addresses_that_are_no_shelf(run: Run, tmp_path: Path, cpu: Path, address: str, words: str) -> None:
    refuses_pull(run, address, tmp_path, words)
    assert_one_clear_line(run("table", "push", cpu, address), "")


@pytest.mark.parametrize(("protocol", "words"), [("s3", r"hwnas\[s3\]"), ("hf", r"hwnas\[hf\]")])
def test_a_missing_package_is_named(
    run: Run, tmp_path: Path, cpu: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, words: str
) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refuses_pull(run, f"{protocol}://x/y", tmp_path, f"{protocol}://x/y", f"pip install '{words}'")


def test_a_folder_is_made_but_not_those_above_it(run: Run, tmp_path: Path, cpu: Path) -> None:
    assert_one_clear_line(run("table", "push", cpu, tmp_path / "no" / "shelf"), "no/shelf does not exist")
    assert not (tmp_path / "no").exists()
    refuses_pull(run, tmp_path / "none", tmp_path, "none does not exist")
    (tmp_path / "plain").mkdir()
    refuses_pull(run, tmp_path / "plain", tmp_path, "is not a shelf: it has no index.json", "table push")
    assert_one_clear_line(run("table", "push", cpu, cpu), "cpu.json cannot be (read|written)")
    assert read_table(cpu)


# Lists


def listed(result: Any) -> dict[str, dict[str, dict[str, Any]]]:
    shelves = json.loads(result.stdout)["shelves"]
    return {Path(s["shelf"]).name: {table["name"]: table for table in s["tables"]} for s in shelves}


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


def test_a_list_moves_no_cursor(run: Run, folder: Path, made: LatencyTable) -> None:
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


# All tables of a shelf at once


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


def test_the_page_of_the_tables_that_ship_is_up_to_date(run: Run, tmp_path: Path) -> None:
    tables = Path(__file__).parents[2] / "latency_tables"
    written = run("table", "page", tables, "--out", tmp_path / "TABLES.md")
    assert written.exit_code == 0, written.output
    text = (tmp_path / "TABLES.md").read_text()
    assert text == (tables / "TABLES.md").read_text(), "hwnas table page latency_tables --out latency_tables/TABLES.md"
    assert text.count("| `") == len(list(tables.glob("*.json")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "odd|name.json").write_text("{}")
    assert run("table", "page", tmp_path / "broken", "--out", tmp_path / "page.md").exit_code == 0
    assert "odd\\|name" in (tmp_path / "page.md").read_text()
    assert "not a latency table" in (tmp_path / "page.md").read_text()


def test_the_index_is_signed_by_who_wrote_it_last(run: Run, tmp_path: Path, cpu: Path, other: Path) -> None:
    where, key = tmp_path / "shelf", tmp_path / "key.pem"
    public = signing.make_keys(key)
    assert run("table", "push", cpu, where, "--key", key).exit_code == 0
    index = json.loads((where / "index.json").read_text())
    assert index["signature"]["key"] == public
    pull = ("table", "pull", "cpu", where, "--trust", public, "--force", "--out", tmp_path / "got.json")
    assert run(*pull).stderr == ""
    # Somebody without a key pushes: the record that is trusted stays so, of the index nobody vouches for the whole.
    assert run("table", "push", other, where).exit_code == 0
    assert "signature" not in json.loads((where / "index.json").read_text())
    got = run(*pull)
    assert got.exit_code == 0, got.output
    assert "index of the shelf is unsigned" in got.stderr
    assert json.loads(run(*pull, "--json").stdout)["index_trusted"] is False
    assert run("table", "push", cpu, where, "--key", key).exit_code == 0  # already there: the index is signed again
    assert run(*pull).stderr == ""
    # A signed index from which a record was taken out.
    index["records"] = []
    (where / "index.json").write_text(json.dumps(index))
    assert_one_clear_line(run(*pull), "signature does not match the index")
    assert_one_clear_line(run("table", "list", "--shelf", where), "signature does not match the index")
