"""Shelves on S3."""

from __future__ import annotations

import hashlib
import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas.sharing import transport
from hwnas.sharing.index import read_index
from hwnas.sharing.push import push
from hwnas.sharing.transport import open_registry
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line, hwnas_process
from support.shelves import push_at_once, refuses_pull, tables_of


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


@pytest.mark.slow
def test_a_table_is_pushed_to_and_pulled_from_s3(run: Run, tmp_path: Path, cpu: Path, other: Path, bucket: str) -> None:
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_processes_that_push_to_s3_lose_none(tmp_path: Path, made: LatencyTable, bucket: str) -> None:
    files = tables_of(tmp_path / "tables", made, 16)
    lots = [[f"{file}={file.stem}" for file in files[start::2]] for start in (0, 1)]
    assert push_at_once(f"{bucket}/shelf", *lots) == [["pushed"] * 8] * 2
    index = read_index(open_registry(f"{bucket}/shelf")).records
    assert [record.name for record in index] == [file.stem for file in files]


@pytest.mark.slow
def test_refusals_of_s3_are_one_line(
    run: Run, tmp_path: Path, cpu: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_clear_line(run("table", "push", cpu, "s3://no-such-bucket/x"), "s3://no-such-bucket/x does not exist")
    refuses_pull(run, "s3://no-such-bucket/x", tmp_path, "s3://no-such-bucket/x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refuses_pull(run, bucket, tmp_path, "no credentials", "AWS_ACCESS_KEY_ID", "FSSPEC_S3_ANON")
    assert_one_clear_line(run("table", "push", cpu, bucket), "no credentials")


@pytest.mark.slow
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


@pytest.mark.slow
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
