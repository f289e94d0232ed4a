"""The schema of a run's folder: files of this version, of older and of newer ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.runs.folder import target_id
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.schema import SCHEMA_FILE, SummaryRow
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from support.benchmarks import search_here
from support.few_digits import FEW_DIGITS
from support.tables import make_table
from tools import run_folder_page

ROW: dict[str, Any] = {
    "device": "phone", "budget": "mild", "architecture": "", "macs": 1, "params": 1, "accuracy": 0.5, "limits": {},
    "validation_accuracy": 0.5, "validation_accuracy_before_training": 0.5, "child_epochs": 0,
    "budget_ms": 2.0, "predicted_ms": 1.5,
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "space": "nasbench201", "setting": {}, "tables": {"phone": "a", "server": "b"}, "data": "digits", "verify": False,
    "data_fingerprint": "c", "budgets": ["mild"], "recipe": {"method": "snas", "epochs": 1, "seed": 0},
    "digest": "d", "versions": {}, "started": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Search for one epoch."""
    place = tmp_path_factory.mktemp("schema")
    space = get_space("nasbench201")
    write_table(place / "cpu.json", make_table(SizedSpace(space, Setting(channels=4, depth=1, height=16, width=16))))
    one = "{trainings: 2, rounds: 1, candidates: 2, epochs: 1, last: 1, last_epochs: 1}"
    (place / "short.yaml").write_text(f"base: snas-short\nfinalists: {one}\n")
    sizes = ("--data", FEW_DIGITS, "--channels", "4", "--layers", "1", "--epochs", "1", "--child-epochs", "1")
    arguments = (
        "search",
        "--table",
        str(place / "cpu.json"),
        *sizes,
        "--batch-size",
        "16",
        "--recipe",
        str(place / "short.yaml"),
        "--budget",
        "mild",
        "--out",
        str(place / "run"),
        "--profile",
    )
    with pytest.MonkeyPatch.context() as patched:
        search_here(patched)
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return place / "run"


def contents(file: Path) -> list[Any]:
    """Return the content of a JSON file, or its rows."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    content = json.loads(text)
    if file.name == "steps.json":
        return list(content.values())
    return content if isinstance(content, list) else [content]


def test_schema_and_page_are_generated_from_the_models() -> None:
    command = "run python -m tools.run_folder_page"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == run_folder_page.schema_text(), command
    assert run_folder_page.PAGE_FILE.read_text(encoding="utf-8") == run_folder_page.page_text(), command
    Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("name", run_folder_page.FILES)
def test_files_of_a_search_fit_the_schema_and_are_read_without_loss(folder: Path, name: str) -> None:
    file = folder / name.replace("TARGET", "mild")
    if not file.exists():
        assert file.name in ("verification.json", "quantization.json", "pretrained.json")
        return
    model: type[BaseModel] = run_folder_page.FILES[name]
    definitions = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))["$defs"]
    validator = Draft202012Validator({"$ref": f"#/$defs/{model.__name__}", "$defs": definitions})
    for content in contents(file):
        validator.validate(content)
        record = model.model_validate(content)
        assert record.to_json() == content  # type: ignore[attr-defined]
        assert not record.model_extra, "the schema declares every field"


def test_summary_metrics_and_folder_have_the_same_target_id(folder: Path) -> None:
    (row,) = json.loads((folder / "summary.json").read_text())["targets"]
    (epoch,) = contents(folder / "metrics.jsonl")
    assert row["target"] == epoch["target"] == "mild"
    assert json.loads((folder / row["target"] / "architecture.json").read_text())["target"] == "mild"


@pytest.mark.parametrize(
    ("devices", "budget", "expected"),
    [
        (["phone"], "4.5ms,2M-params", "4.5ms_2M-params"),
        (["phone", "server"], "60%", "phone_60pct"),
        (["phone", "server"], "4ms@phone,3ms@server", "4ms-on-phone_3ms-on-server"),
    ],
)
def test_a_target_id_is_a_folder_name(devices: list[str], budget: str, expected: str) -> None:
    assert target_id(devices, "phone", budget) == expected


def test_targets_of_older_runs_get_their_id_from_device_and_budget() -> None:
    row = SummaryRow.model_validate(ROW)
    assert not row.target
    assert Manifest.model_validate(MANIFEST).target_id(row.device, row.budget) == "phone_mild"


def test_fields_of_newer_versions_are_kept() -> None:
    row = SummaryRow.model_validate(ROW | {"energy_mj": 3.5})
    assert row.to_json() == ROW | {"energy_mj": 3.5}


def test_a_row_has_one_latency_for_each_device() -> None:
    (timing,) = SummaryRow.model_validate(ROW).timings
    assert (timing.device, timing.budget_ms, timing.latency_ms) == ("phone", 2.0, 1.5)
    devices = [{"device": "phone", "predicted_ms": 1.0, "measured_ms": 1.2}, {"device": "server", "predicted_ms": 2.0}]
    joint = {key: value for key, value in ROW.items() if not key.endswith("_ms")} | {"devices": devices}
    assert [timing.latency_ms for timing in SummaryRow.model_validate(joint).timings] == [1.2, 2.0]
    del joint["devices"]
    with pytest.raises(ValidationError, match="predicted_ms is missing"):
        SummaryRow.model_validate(joint)
