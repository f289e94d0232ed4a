"""The format as other programs see it: its JSON Schema, its page, files of every version that must read for ever."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hwnas.files import sha256_of, shipped
from hwnas.tables.io import read_table, table_text
from hwnas.tables.schema import VERSIONS
from support.command import Run, assert_one_clear_line
from support.paths import FROZEN_TABLES
from tools.format_page import SCHEMA_FILE, field_rows, schema_text

PAGE = (shipped("latency_tables") / "FORMAT.md").read_text(encoding="utf-8")
VALIDATOR = Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
# Of files that were written once and are never written again. A format that changes these has broken old tables.
HASHES = {
    1: "cbb7d7666601bf827788bbc8ade51c8edabec843707f3b41d2deeaf74a526c79",
    2: "580ccef86cb2f63181e40186e184cf967a7124eaab93ad6f9f5065b675fa59c6",
}
SHIPPED = sorted(shipped("latency_tables").glob("*.json"))


@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_every_version_read_and_keep_their_hash(version: int) -> None:
    file = FROZEN_TABLES / f"v{version}.json"
    table = read_table(file)
    assert table.version == version
    assert json.loads(file.read_text())["sha256"] == HASHES[version]
    assert table.sha256 == HASHES[version]
    assert table_text(table) == file.read_text()


def test_frozen_files_hold_what_was_put_in() -> None:
    first, second = read_table(FROZEN_TABLES / "v1.json"), read_table(FROZEN_TABLES / "v2.json")
    (network,) = first.correction
    assert network == "nasbench201/16x5/3x32x32/10"
    assert first.correction[network].factors == {"pool": 0.96875}
    assert [entry.latency_ms for entry in first.entries] == [0.0175, 0.02, 1e-05, 0.0]
    assert first.entries[3].error_ms is None
    assert first.runtime.options == {"spinning": False, "level": 3, "share": 0.5, "mode": "sequential"}
    assert second.entries == []
    costs = second.edge_costs[network]
    assert costs.cells["cell"].live_ms[5] == [0.0, 0.0, 0.0625 * 1.625, 0.25 * 1.625, 0.125 * 1.625]
    assert len(costs.covariance) == 49


def test_the_schema_file_is_that_of_the_models() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run python -m tools.format_page"


def test_the_schema_is_a_schema_and_the_command_prints_it(run: Run) -> None:
    result = run("table", "schema")
    assert result.exit_code == 0
    assert result.stdout == SCHEMA_FILE.read_text(encoding="utf-8")
    Draft202012Validator.check_schema(json.loads(result.stdout))


@pytest.mark.parametrize("file", [*SHIPPED, *FROZEN_TABLES.glob("*.json")], ids=lambda file: file.name)
def test_tables_satisfy_the_schema(file: Path) -> None:
    VALIDATOR.validate(json.loads(file.read_text(encoding="utf-8")))


def test_there_are_shipped_tables_of_both_versions() -> None:
    assert {json.loads(file.read_text())["version"] for file in SHIPPED} == {1, 2}


def _without(*path: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return change


def _with(value: Any, *path: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return change


WRONG = {
    "no hash": _without("sha256"),
    "half a hash": _with("cbb7d7", "sha256"),
    "no version": _without("version"),
    "a version to come": _with(3, "version"),
    "another format": _with("other", "format"),
    "no format": _without("format"),
    "no device": _without("device"),
    "an unknown field": _with(1, "surprise"),
    "an unknown field of an entry": _with(1, "entries", 0, "latency_s"),
    "a negative latency": _with(-1.0, "entries", 0, "latency_ms"),
    "a latency as text": _with("1.0", "entries", 0, "latency_ms"),
    "no latency": _without("entries", 0, "latency_ms"),
    "no channels": _with(0, "entries", 0, "in_channels"),
    "half a channel": _with(0.5, "entries", 0, "in_channels"),
    "a kind of device": _with("fridge", "device", "kind"),
    "a long name": _with("x" * 201, "device", "name"),
    "a long key": _with({"x" * 201: 1}, "runtime", "options"),
    "another provenance": _with("guessed", "provenance"),
    "a share above one": _with(1.5, "protocol", "waited"),
    "edge costs in version 1": _with({"a": 1}, "edge_costs"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_the_schema_and_the_reader_refuse_wrong_tables(change: Callable[[Any], None], run: Run, tmp_path: Path) -> None:
    content = json.loads((FROZEN_TABLES / "v1.json").read_text())
    assert VALIDATOR.is_valid(content)
    change(content)
    assert not VALIDATOR.is_valid(content)
    if isinstance(content["entries"][0].get("latency_ms"), str):
        return  # the reader takes a number in quotes for a number; nothing writes one
    unsigned = {key: value for key, value in content.items() if key != "sha256"}
    if re.fullmatch("[0-9a-f]{64}", content.get("sha256", "")):
        content["sha256"] = sha256_of(unsigned)
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    assert_one_clear_line(run("table", "show", tmp_path / "wrong.json"), "wrong.json")


def test_costs_by_edge_of_a_wrong_shape_are_refused(run: Run, tmp_path: Path) -> None:
    """The reader checks what a JSON Schema cannot express."""
    content = json.loads((FROZEN_TABLES / "v2.json").read_text())
    del content["sha256"]
    (costs,) = content["edge_costs"].values()
    changes: dict[str, Callable[[Any], None]] = {
        "one shape": lambda c: c["cells"]["cell"]["macs"].pop(),
        "negative": _with(-1.0, "cells", "cell", "error_ms", 0, 1),
        "lack none": _with([f"op{number}" for number in range(5)], "operations"),
        "lower triangle": lambda c: c["covariance"].pop(),
        "variance": _with(-1.0, "covariance", 0, 0),
    }
    for words, change in changes.items():
        wrong = copy.deepcopy(content)
        change(next(iter(wrong["edge_costs"].values())))
        file = tmp_path / "wrong.json"
        file.write_text(json.dumps({**wrong, "sha256": sha256_of(wrong)}))
        assert_one_clear_line(run("table", "show", file), "wrong.json", words)
    assert costs == json.loads((FROZEN_TABLES / "v2.json").read_text())["edge_costs"]["nasbench201/16x5/3x32x32/10"]


# --- the page


def page_rows() -> dict[str, dict[str, list[str]]]:
    """Per model, the cells of every row of its table on the page."""
    result = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        model, _, body = re.split(r"^## ", section, flags=re.MULTILINE)[0].partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", body, flags=re.MULTILINE)
        result[model.strip()] = {field: [kind, meaning] for field, kind, meaning in rows}
    return result


def test_the_page_explains_every_field_and_no_other() -> None:
    rows = page_rows()
    assert set(rows) == set(field_rows())
    for model, fields in field_rows().items():
        assert {name: cells[0] for name, cells in rows[model].items()} == fields, model
        assert all(len(meaning) >= 6 for _, meaning in rows[model].values()), model


def test_the_page_knows_every_version() -> None:
    listed = re.findall(r"^\| (\d+) \| hwnas", PAGE, flags=re.MULTILINE)
    assert [int(version) for version in listed] == list(VERSIONS)
    for version in VERSIONS:
        assert (FROZEN_TABLES / f"v{version}.json").is_file()


def test_the_example_of_the_page_reads(tmp_path: Path) -> None:
    example = re.search(r"```json[^\n]*\n(.*?)```", PAGE, re.DOTALL)
    assert example
    (tmp_path / "table.json").write_text(example[1])
    assert len(read_table(tmp_path / "table.json").entries) == 2
    VALIDATOR.validate(json.loads(example[1]))


@pytest.mark.parametrize(
    "file", [SHIPPED[0], FROZEN_TABLES / "v1.json", FROZEN_TABLES / "v2.json"], ids=lambda file: file.name
)
def test_the_command_of_the_page_checks_a_file_without_hwnas(file: Path, tmp_path: Path) -> None:
    command = re.search(r"```sh\npython3 -c \"(.*)\" table\.json\n```", PAGE)
    assert command

    def says(path: Path) -> str:
        call = [sys.executable, "-I", "-S", "-c", command[1], str(path)]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    assert says(file) == "intact"
    changed = tmp_path / "changed.json"
    changed.write_text(re.sub(r'"params":(\d+)', r'"params":1\1', file.read_text(), count=1))
    if changed.read_text() == file.read_text():
        changed.write_text(file.read_text().replace('"base_ms":0.5', '"base_ms":0.25'))
    assert says(changed) == "changed"
    spaced = tmp_path / "spaced.json"
    spaced.write_text(json.dumps(json.loads(file.read_text()), indent=3, sort_keys=False))
    assert says(spaced) == "intact"


def test_a_newer_version_is_refused_with_advice(run: Run, tmp_path: Path) -> None:
    content = json.loads((FROZEN_TABLES / "v2.json").read_text()) | {"version": max(VERSIONS) + 1}
    (tmp_path / "newer.json").write_text(json.dumps(content))
    assert_one_clear_line(run("table", "show", tmp_path / "newer.json"), f"version {max(VERSIONS) + 1}", "update hwnas")
