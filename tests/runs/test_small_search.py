"""Whole searches with a small network for a larger target network: what ships, its training, what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.cost.build import build_metrics
from hwnas.export.network import file_network
from hwnas.export.timing import Measured
from hwnas.files import sha256_of_file
from hwnas.profiling.session import ask
from hwnas.runs import search, select, time_trained, verify
from hwnas.runs.schema import SCHEMA_FILE
from hwnas.runtimes.device_spec import parse_device
from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import read_table, write_table
from hwnas.training import child as training
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.images import write_images
from support.json_files import content_of
from support.spaces import DARTS
from support.training import random_images
from support.two_networks import TARGET, named_table
from tools import run_folder_page

SEARCH = ("--search-channels", 4, "--search-cells", 1, "--data", FEW_DIGITS, "--recipe", "snas-short")
SHORT = ("--epochs", 1, "--child-epochs", 1, "--batch-size", 32)
OWN_SPACE = """
name: twin
operations: [none, skip_connect, nor_conv_3x3, {name: sep_conv_7x7, kind: separable_conv, kernel: 7}]
cells:
  cell: {nodes: 2}
network:
  stages: [{cell: cell}, {cell: cell, channels: 2, reduction: residual_reduction}]
settings:
  small: {channels: 4, depth: 1, height: 16, width: 16}
"""


def words(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of random images that fit the target network: three classes, 3x32x32."""
    folder = write_images(tmp_path_factory.mktemp("images"), 12, 32, classes=("ant", "bee", "cow"))
    return f"imagefolder:{folder}"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search at 4x1 for a target network of 8x2, with a made-up table of this machine."""
    folder = tmp_path_factory.mktemp("small")
    table = named_table(TARGET)
    device = table.device.model_copy(update={"fingerprint": ask(parse_device("cpu")).device.fingerprint})
    write_table(folder / "cpu.json", table.model_copy(update={"device": device}))
    result = CliRunner().invoke(
        app, words("search", "--table", folder / "cpu.json", *SEARCH, *SHORT, "--out", folder / "run")
    )
    assert result.exit_code == 0, result.output
    assert "untrained" in result.stdout
    assert "proxy test" in result.stdout
    assert f"next: hwnas train {folder / 'run'} --data DATA" in result.stdout
    assert "search network, which is trained now: nasbench201, 4 channels" in result.stderr
    return folder / "run"


@pytest.fixture
def finished(searched: Path, tmp_path: Path) -> Path:
    """A copy of the finished search that a test may change."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


def row_of(run_folder: Path) -> dict[str, Any]:
    (row,) = content_of(run_folder / "summary.json")["targets"]
    return dict(row)


@pytest.mark.end_to_end
def test_what_ships_is_the_untrained_target_network(searched: Path) -> None:
    place, row = searched / "moderate", row_of(searched)
    content, manifest = content_of(place / "architecture.json"), content_of(searched / "manifest.json")
    assert Setting(**manifest["setting"]) == Setting(**content["setting"]) == TARGET.setting
    assert Setting(**manifest["search_setting"]) == Setting(4, 1, 3, 16, 16, 10)
    assert (row["trained"], row["accuracy"], row["validation_accuracy"], row["child_epochs"]) == (False, None, None, 0)
    assert (content["trained"], content["test_accuracy"], content["data"]) == (False, None, None)
    assert row["proxy"] == content["proxy"]
    assert Setting(**row["proxy"]["setting"]) == Setting(**manifest["search_setting"])
    assert 0 < row["proxy"]["accuracy"] < 1
    assert row["proxy"]["child_epochs"] == 1
    assert row["parity"]["random_images"]
    assert row["parity"]["same_class"] == 1.0
    names = sorted(file.name for file in (place / "proxy").iterdir())
    assert names == ["train.pt", "training.jsonl", "weights.safetensors"]
    metadata = {p.key: p.value for p in onnx.load(place / "network.onnx").metadata_props}
    assert metadata["hwnas.weights"] == "untrained"
    assert "hwnas.labels" not in metadata
    assert float(metadata["hwnas.predicted_latency_ms"]) == row["predicted_ms"]
    images = random_images(5, 32).images.float()
    assert file_network(place / "network.onnx")(images).shape == (5, 3)


@pytest.mark.end_to_end
def test_files_of_a_search_of_two_networks_fit_the_schema(searched: Path) -> None:
    definitions = content_of(SCHEMA_FILE)["$defs"]
    for name in ("manifest.json", "summary.json", "TARGET/architecture.json"):
        model = run_folder_page.FILES[name]
        content = content_of(searched / name.replace("TARGET", "moderate"))
        Draft202012Validator({"$ref": f"#/$defs/{model.__name__}", "$defs": definitions}).validate(content)
        record = model.model_validate(content)
        assert record.to_json() == content  # type: ignore[attr-defined]
        assert not record.model_extra


@pytest.mark.end_to_end
def test_an_untrained_network_is_not_evaluated(run: Run, searched: Path) -> None:
    train = f"hwnas train {searched / 'moderate'} --data DATA"
    assert_one_clear_line(run("evaluate", searched), "is untrained", train)
    assert_one_clear_line(run("export", searched, "--quantize", "int8"), "is untrained", train)
    assert_one_clear_line(run("train", searched), "no images are known", "3x32x32 with 3 classes", "--data")
    unfit = run("train", searched, "--data", "digits?size=16")
    assert_one_clear_line(unfit, "3x16x16 with 10 classes", "takes 3x32x32 with 3 classes", "--data")


@pytest.mark.end_to_end
def test_derive_and_report_are_about_the_target(run: Run, searched: Path, tmp_path: Path) -> None:
    row = row_of(searched)
    (target,) = json.loads(run("derive", searched, "--json").stdout)["targets"]
    (found,) = target["architectures"]
    assert (found["architecture"], found["latency_ms"]) == (row["architecture"], row["predicted_ms"])
    assert run("report", searched, "--out", tmp_path / "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in ("8 channels, depth 2, 3x32x32", "4 channels, depth 1, 3x16x16", "untrained", "the proxy of moderate"):
        assert text in page
    (command, *_) = content_of(tmp_path / "page_files" / "report.json")["runs"][0]["commands"]
    again = run(*shlex.split(command.replace("runs/run-again", str(tmp_path / "again")))[1:])
    assert again.exit_code == 0, again.output
    assert content_of(tmp_path / "again/manifest.json")["digest"] == content_of(searched / "manifest.json")["digest"]


@pytest.mark.end_to_end
def test_training_makes_the_target_network_claim_its_budget(
    run: Run, searched: Path, finished: Path, images: str
) -> None:
    before = row_of(finished)
    result = run("train", finished, "--data", images, "--epochs", 2, "--batch-size", 8, "--json")
    assert result.exit_code in (0, 1), result.output
    assert "moderate: the network is untrained, so it starts from scratch" in result.stderr
    (row,) = json.loads(result.stdout)["targets"]
    assert row["trained"]
    assert row["child_epochs"] == 2
    assert row["predicted_ms"] == before["predicted_ms"] <= before["budget_ms"] == row["budget_ms"]
    assert (row["parity"]["same_class"], row["proxy"]) == (1.0, before["proxy"])
    assert "random_images" not in row["parity"]
    if "not timed" not in result.stderr:  # on a machine without too much noise
        kept = row["measured_ms"] <= row["budget_ms"] + row["measured_error_ms"]
        assert (row["kept"], result.exit_code) == (kept, 0 if kept else 1)
        assert content_of(finished / "moderate/verification.json")["measured_ms"] == row["measured_ms"]
    assert row_of(finished)["accuracy"] == row["accuracy"] is not None
    metadata = {p.key: p.value for p in onnx.load(finished / "moderate/network.onnx").metadata_props}
    assert "hwnas.weights" not in metadata
    assert json.loads(metadata["hwnas.labels"]) == ["ant", "bee", "cow"]
    (evaluated,) = json.loads(run("evaluate", finished, "--json").stdout)["targets"]
    assert evaluated["onnx_accuracy"] == pytest.approx(row["accuracy"])
    # A repeated search leaves the trained network as it is.
    network = sha256_of_file(finished / "moderate/network.onnx")
    repeated = run("search", "--table", searched.parent / "cpu.json", *SEARCH, *SHORT, "--out", finished, "--json")
    assert repeated.exit_code == 0, repeated.output
    assert json.loads(repeated.stdout)["targets"] == [row_of(finished)]
    assert sha256_of_file(finished / "moderate/network.onnx") == network
    assert "moderate: `hwnas train` has trained its network since" in repeated.stderr


@pytest.mark.end_to_end
def test_target_data_calibrate_the_network_and_train_it(run: Run, searched: Path, tmp_path: Path, images: str) -> None:
    out, table = tmp_path / "run", searched.parent / "cpu.json"
    base = ("search", "--table", table, *SEARCH, *SHORT)
    result = run(*base, "--target-data", images, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"next: hwnas train {out}\n" in result.stdout
    row, manifest = row_of(out), content_of(out / "manifest.json")
    assert manifest["target_data"] == images == content_of(out / "moderate/architecture.json")["data"]
    assert "random_images" not in row["parity"]
    assert row["architecture"] == row_of(searched)["architecture"]  # the search does not see them
    other = write_images(tmp_path / "two", 8, 24)
    refused = (*base, "--out", tmp_path / "other", "--target-data")
    assert_one_clear_line(run(*refused, f"imagefolder:{other}"), "3x32x32 with 3 classes", "3x24x24 with 2 classes")
    assert not (tmp_path / "other").exists()


def interrupted(run: Run, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *arguments: object) -> None:
    """Run a command that is interrupted when a method is called for the third time."""
    usual: Callable[..., Any] = getattr(owner, name)
    calls = []

    def call(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return usual(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, call)
        assert run(*arguments).exit_code == 130


@pytest.mark.end_to_end
def test_an_interrupted_search_ends_in_the_same_networks(
    run: Run, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is interrupted in the training of the supernet, then in that of the proxy."""
    from hwnas.search.search import Search

    command = ("search", "--table", searched.parent / "cpu.json", *SEARCH, *SHORT, "--out", tmp_path / "run")
    interrupted(run, monkeypatch, Search, "take_step", *command)
    interrupted(run, monkeypatch, training.Trainer, "take_step", *command)
    assert run(*command).exit_code == 0
    for file in ("architecture.json", "network.onnx", "weights.safetensors", "proxy/weights.safetensors"):
        assert sha256_of_file(tmp_path / "run/moderate" / file) == sha256_of_file(searched / "moderate" / file), file


@pytest.mark.end_to_end
@pytest.mark.parametrize("space", ["nasbench201", "darts", "own"])
def test_what_ships_costs_what_its_table_predicts_and_space_count_counts(
    run: Run, tmp_path: Path, images: str, space: str
) -> None:
    """Two devices, whose tables predict the same network; each target within its budget."""
    (tmp_path / "twin.yaml").write_text(OWN_SPACE)
    spec = str(tmp_path / "twin.yaml") if space == "own" else space
    sizes = {"nasbench201": (6, 2), "darts": (6, 4), "own": (6, 3)}[space]
    setting = Setting(*sizes, height=24, width=24, classes=5)
    sized = SizedSpace(get_space(spec), setting)
    tables = {name: named_table(sized, seed) for seed, name in enumerate(("phone", "server"))}
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.json", table)
    given = [word for name in tables for word in ("--table", tmp_path / f"{name}.json")]
    small = ("--search-channels", 4, "--search-cells", 3 if space == "darts" else 1, "--data", f"{images}?size=8")
    budgets = ("--budget", "60%", "--budget", "moderate@phone,80%@server,90%-params")
    method = ("--recipe", "snas-short", "--epochs", 1, "--child-epochs", 0, "--batch-size", 512)
    result = run("search", *given, "--space", spec, *small, *budgets, *method, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["targets"]
    assert len(rows) == 3
    for row in rows:
        architecture = sized.space.parse(row["architecture"])
        for timing in row.get("devices", [row]):
            latency = build_metrics(tables[timing["device"]], sized)["latency_ms"]
            assert timing["predicted_ms"] == latency.predict(architecture) <= timing["budget_ms"]
        count = ("--channels", sizes[0], "--layers", sizes[1], "--input", "3x24x24", "--classes", 5)
        named = ("--setting", "cifar") if space == "darts" else ()
        asked = ("space", "count", "--space", spec, *named, *count, "--architecture", row["architecture"], "--json")
        counted = json.loads(run(*asked).stdout)
        convention = "macs_fvcore" if sized.space.macs_convention == "fvcore" else "macs_conv_linear"
        assert (row["params"], row["macs"]) == (counted["params"], counted[convention])


@pytest.mark.end_to_end
@pytest.mark.parametrize("precision", [FLOAT32, INT8])
def test_verify_times_the_untrained_target_network(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """A stand-in for the clock looks at the files that are timed: target networks, in int8 for a table of int8."""
    timed: list[tuple[SizedSpace, list[int], bool]] = []

    def time_networks(files: Mapping[str, Path], spec: object, table: object, sized: SizedSpace, log: object) -> Any:
        for file in files.values():
            graph = onnx.load(file).graph
            shape = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim[1:]]
            timed.append((sized, shape, any("Quantize" in node.op_type for node in graph.node)))
        return {name: Measured(0.001, 0.0001, 0.001, None) for name in files}

    for module in (select, verify):
        monkeypatch.setattr(module, "time_networks", time_networks)
    for module in (search, verify):
        monkeypatch.setattr(module, "require_its_device", lambda table: None)
    table = named_table(TARGET)
    runtime = table.runtime.model_copy(update={"precision": precision})
    write_table(tmp_path / "cpu.json", table.model_copy(update={"runtime": runtime}))
    command = ("search", "--table", tmp_path / "cpu.json", *SEARCH, *SHORT, "--verify", "--out", tmp_path / "run")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert timed == [(TARGET, [3, 32, 32], precision == INT8)] * 2  # in the derivation, then the exported file
    row = row_of(tmp_path / "run")
    assert (row["trained"], row["kept"], row["measured_ms"]) == (False, True, 0.001)
    assert "moderate (untrained)" in run("verify", tmp_path / "run").stdout
    assert ("int8" in row) == ("in int8, untrained" in result.stdout) == (precision == INT8)
    assert row.get("int8", {}).get("test_accuracy") is None
    # After its training, which times it again, it is no longer called so.
    images = write_images(tmp_path / "images", 8, 32, classes=("ant", "bee", "cow"))
    monkeypatch.setattr(time_trained, "require_its_device", lambda table: None)
    trained = run("train", tmp_path / "run", "--data", f"imagefolder:{images}", "--epochs", 1, "--batch-size", 8)
    assert trained.exit_code == 0, trained.output
    assert "keeps its budget" in trained.stdout
    assert row_of(tmp_path / "run")["trained"]
    assert "untrained" not in run("verify", tmp_path / "run").stdout


@pytest.mark.slow
def test_inputs_that_do_not_fit_are_refused(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "cpu.json", named_table(TARGET))
    base = ("search", "--table", tmp_path / "cpu.json", "--data", "digits?size=16", "--out", tmp_path / "run")
    assert_one_clear_line(run(*base, "--channels", 6), "lacks", "--search-channels and --search-cells")
    assert_one_clear_line(run(*base, "--search-setting", "huge"), "no setting 'huge'")
    assert_one_clear_line(run(*base, "--input", "3x2x2"), "2x2 image is too small", "--input")
    large = SizedSpace(DARTS, Setting(channels=36, depth=6, height=16, width=16))
    write_table(tmp_path / "darts.json", named_table(large))
    darts = ("search", "--table", tmp_path / "darts.json", *base[3:])
    assert_one_clear_line(run(*darts, "--search-cells", 1), "has no normal cell", "--search-cells")
    assert_one_clear_line(run(*base, "--search-input", "3x8x8"), "has size 16", "--search-input 8")
    assert_one_clear_line(run(*base, "--search-input", "3x8x16"), "8x16 are not square")
    assert_one_clear_line(run(*base, "--search-input", "1x16x16"), "are 3x16x16", "asks for 1x16x16")
    assert_one_clear_line(run(*base, "--search-input", "16x16x3"), "channels come first")
    assert_one_clear_line(run(*base, "--executor", "ray"), "the search has none", "--finalists")
    assert_one_clear_line(run(*base, "--finalists", 4, "--executor", "cloud"), "unknown executor 'cloud'")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_table_that_comes_with_hwnas_is_read_by_name(run: Run, tmp_path: Path) -> None:
    shown = run("table", "show", "shipped:published-pixel3")
    assert shown.exit_code == 0
    assert "shipped:published-pixel3: fitted on" in shown.stdout
    listed = run("table", "list").stdout
    assert "shipped:published-pixel3" in listed
    assert "nasbench201 16x5, 3x32x32 input, 10 classes" in listed
    assert "hwnas search --table shipped:NAME" in listed
    names = ("--table", "shipped:published-pixel3", "--table", "shipped:published-samsung-a50")
    preview = run("space", "preview", *names, "--budget", "moderate@published-pixel3,mild@published-samsung-a50")
    assert preview.exit_code == 0, preview.output
    assert_one_clear_line(run("table", "show", "shipped:published-pixel"), "published-pixel3", "hwnas table list")


@pytest.mark.end_to_end
def test_a_small_search_for_a_device_that_comes_with_hwnas(run: Run, tmp_path: Path) -> None:
    small = ("--search-channels", 4, "--search-cells", 1, "--search-input", "3x8x8", *SHORT, "--recipe", "snas-short")
    result = run("search", "--table", "shipped:published-pixel3", *small, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    manifest = content_of(tmp_path / "run" / "manifest.json")
    assert manifest["data"] == "digits?size=8"
    assert [manifest["search_setting"][size] for size in ("image_channels", "height", "width")] == [3, 8, 8]
    (row,) = json.loads(result.stdout)["targets"]
    table = read_table(Path("shipped:published-pixel3"))
    full = SizedSpace.named(get_space("nasbench201"))
    architecture = full.space.parse(row["architecture"])
    assert row["device"] == "published-pixel3"
    assert row["predicted_ms"] == build_metrics(table, full)["latency_ms"].predict(architecture)
