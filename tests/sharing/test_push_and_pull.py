"""Push tables to folders and fsspec URLs and pull them."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.sharing import pull, records
from hwnas.tables.io import MAX_BYTES, read_table
from hwnas.tables.schema import Additivity, LatencyTable, Quality
from support.command import Run, assert_one_clear_line
from support.shelves import files_in, record_of, refuses_pull, rewrite


@pytest.mark.parametrize("kind", ["folder", "file", "memory"])
def test_a_pulled_table_equals_the_pushed_one_byte_by_byte(run: Run, tmp_path: Path, cpu: Path, kind: str) -> None:
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


def test_push_writes_table_record_and_index(folder: Path, cpu: Path, made: LatencyTable) -> None:
    digest = hashlib.sha256(cpu.read_bytes()).hexdigest()
    assert set(files_in(folder)) == {"index.json", "records/cpu.json", f"tables/{digest}.json"}
    record = record_of(folder)
    index = json.loads((folder / "index.json").read_text())
    assert index == {"format": "hwnas-shelf", "version": 1, "records": [record]}
    assert (record["file_sha256"], record["file_bytes"]) == (digest, cpu.stat().st_size)
    assert record["table_sha256"] == read_table(cpu).sha256
    assert record["description"]["device"] == made.device.name


def test_a_table_without_a_newer_field_keeps_its_stated_sha256(run: Run, tmp_path: Path, cpu: Path) -> None:
    content = json.loads(cpu.read_text())
    del content["sha256"], content["protocol"]["stolen"]
    cpu.write_text(json.dumps({**content, "sha256": sha256_of(content)}))
    assert read_table(cpu).sha256 != sha256_of(content)
    assert run("table", "push", cpu, tmp_path / "shelf").exit_code == 0
    assert record_of(tmp_path / "shelf")["table_sha256"] == sha256_of(content)
    assert run("table", "pull", "cpu", tmp_path / "shelf").exit_code == 0


def test_a_description_lists_networks_and_their_accuracy(made: LatencyTable) -> None:
    report = Additivity(
        networks=9, mape=1.25, within_5_percent=1, within_10_percent=1, kendall_tau=None, worst=2, bias=0, floor=None
    )
    additivity = {f"space/{number:03}": report for number in range(60)}
    description = records.describe(made.model_copy(update={"quality": Quality(additivity=additivity, noise=["loud"])}))
    assert description.noisy
    assert description.networks == sorted(additivity)[: records.MAX_NETWORKS]
    assert description.quality["space/003"].model_dump() == {"mape": 1.25, "kendall_tau": None}


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


def test_an_unknown_name_is_answered_with_similar_names(run: Run, folder: Path) -> None:
    result = run("table", "pull", "cqu", folder)
    assert_one_clear_line(result, "no table named cqu", "it has cpu", f"hwnas table list --shelf {folder}")


def test_incomplete_tables_are_not_pushed(run: Run, tmp_path: Path, cpu: Path) -> None:
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
