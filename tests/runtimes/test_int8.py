"""int8: the quantised graphs, the calibration images, tables and searches for a quantised device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.data import ImageData, Split, load_data
from hwnas.errors import HwnasError
from hwnas.export.network import export_network
from hwnas.export.quantize import quantize_network
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.models import SENTINEL, Whole, repeated, write_model
from hwnas.runs.quantize import warnings_of
from hwnas.runs.schema import QuantizationRow, QuantizedTiming
from hwnas.runtimes.device_spec import parse_device
from hwnas.runtimes.int8 import quantize_onnx, random_feeds
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload, get_space
from hwnas.tables.io import read_table, write_table
from hwnas.tables.merge import merge_tables
from support.command import Run, assert_one_clear_line, profile, timed
from support.tables import make_table

DATA = load_data("digits?size=16")
SMALL = Setting(channels=8, depth=1, height=16, width=16)
POOLS_ALONE = "|avg_pool_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
CONV_LAST = "|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
NETWORKS = {
    "a pooling alone behind the stem": Whole(
        SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(POOLS_ALONE)
    ),
    "a pooling between convolutions": Whole(
        SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(CONV_LAST)
    ),
    "darts": Whole(SizedSpace(SPACES["darts"], replace(SMALL, depth=3)), SPACES["darts"].parse("DARTS_V2")),
}
INT8 = "cpu?precision=int8"


def written(network: Whole, folder: Path) -> tuple[Path, Path]:
    floats, integers = folder / "float32.onnx", folder / "int8.onnx"
    assemble_onnx(network, floats, folder / "pieces")
    quantize_onnx(floats, integers, [random_feeds(floats)])
    return floats, integers


@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_has_int8_weights_a_scale_per_channel_and_its_own_bias(name: str, tmp_path: Path) -> None:
    floats, integers = written(NETWORKS[name], tmp_path)
    graph = onnx.load(integers).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    writers = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    before = [node for node in onnx.load(floats).graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == len(before) > 5
    for layer in layers:
        image, weight, *bias = (writers[given] for given in layer.input)
        assert {node.op_type for node in (image, weight, *bias)} == {"DequantizeLinear"}
        assert writers[image.input[0]].op_type == "QuantizeLinear"
        assert held[image.input[2]].dtype == np.uint8
        assert held[weight.input[0]].dtype == np.int8
        assert len(held[weight.input[1]]) == len(held[weight.input[0]])
        # The integers add up only where the bias counts in the product of the two scales.
        for each in bias:
            assert held[each.input[0]].dtype == np.int32
            np.testing.assert_allclose(held[each.input[1]], held[image.input[1]] * held[weight.input[1]], rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_convolves_integers_and_pools_floats(name: str, tmp_path: Path) -> None:
    floats, integers = written(NETWORKS[name], tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = onnxruntime.InferenceSession(str(integers), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == sum(node.op_type == "Conv" for node in onnx.load(floats).graph.node)
    assert kinds.count("QGemm") == 1
    assert "QLinearAveragePool" not in kinds
    image = random_feeds(floats)
    (expected,) = onnxruntime.InferenceSession(str(floats), providers=["CPUExecutionProvider"]).run(None, image)
    (scores,) = session.run(None, image)
    assert np.abs(scores - expected).max() < 0.15 * np.abs(expected).max()
    assert np.abs(scores - expected).max() > 0


def test_calibration_reads_training_images_only(tmp_path: Path) -> None:
    """The scale of the quantised images is that of the training images, computed here."""

    def refuse() -> Split:
        raise AssertionError("the test images were read")

    far_out = Split(torch.full((8, 3, 16, 16), 255, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    dark = Split(DATA.train.images // 2, DATA.train.targets)
    data = ImageData("dark", DATA.labels, dark, far_out, refuse, flip=False)
    space = get_space("nasbench201")
    child = ChildNetwork(SizedSpace(space, SMALL), space.parse(POOLS_ALONE), prune=True)
    export_network(child, tmp_path / "network.onnx", {"note": "kept"})
    for images, named in ((len(dark), "all.onnx"), (50, "some.onnx")):
        quantize_network(tmp_path / "network.onnx", tmp_path / named, data, images)
    scales = [input_scale(tmp_path / named) for named in ("all.onnx", "some.onnx")]
    pixels = dark.images.numpy() / 255
    mean, std = pixels.mean(axis=(0, 2, 3), keepdims=True), pixels.std(axis=(0, 2, 3), keepdims=True)
    seen = (pixels - mean) / std
    assert scales[0] == pytest.approx((seen.max() - seen.min()) / 255, rel=1e-3)
    assert scales[1] <= scales[0]
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "all.onnx").metadata_props}
    assert properties["hwnas.note"] == "kept"
    assert properties["hwnas.precision"] == "int8"
    assert properties["hwnas.batch"] == "dynamic"


def input_scale(file: Path) -> float:
    graph = onnx.load(file).graph
    (reader,) = (node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
    return next(float(numpy_helper.to_array(t)) for t in graph.initializer if t.name == reader.input[1])


def test_models_are_quantised_and_the_sentinel_is_not(tmp_path: Path) -> None:
    spec = parse_device(INT8)
    assert parse_device(spec.text) == spec
    assert parse_device("cpu").text == "cpu+onnxruntime?threads=1&batch=1"
    write_model(SENTINEL, spec, tmp_path / "sentinel.onnx")
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load(tmp_path / "sentinel.onnx").graph.node}
    workload = Workload("nor_conv_3x3", 8, 8, 8, 8)
    for name, model in repeated(workload, spec).items():
        write_model(model, spec, tmp_path / f"{name}.onnx")
        graph = onnx.load(tmp_path / f"{name}.onnx").graph
        copies = int(name.partition("@")[2])
        kinds = [node.op_type for node in graph.node]
        assert kinds.count("Conv") == len(graph.input) == len(graph.output) == copies
        # A step to integers before each copy, one behind it: none is shared, none is left out.
        assert kinds.count("QuantizeLinear") == 2 * copies


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network was trained on digits."""
    folder = tmp_path_factory.mktemp("searched")
    write_table(folder / "table.json", make_table(SizedSpace(get_space("nasbench201"), SMALL)))
    words = ["search", "--table", folder / "table.json", "--data", "digits?size=16", "--recipe", "snas-short"]
    words += ["--channels", 8, "--cells", 1, "--epochs", 2, "--child-epochs", 12, "--budget", "90%"]
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--out", folder / "run"]])
    assert result.exit_code == 0, result.output
    return folder / "run"


def accuracy_of(file: Path, split: Split) -> float:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": DATA.normalise(split.images).numpy()})
    return float((scores.argmax(axis=1) == split.targets.numpy()).mean())


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.usefixtures("short_timings")
def test_a_run_is_quantised_and_reports_accuracy_and_latency(run: Run, searched: Path) -> None:
    place = searched / "90pct"
    asked = ("--quantize", "int8", "--device", "cpu", "--calibration-images", 100)
    shown = timed(run, "export", searched, *asked)
    assert shown.exit_code == 0, shown.output
    content = json.loads((place / "quantization.json").read_text())
    files = {"float32": place / "network.onnx", "int8": place / "network_int8.onnx"}
    for name, split in (("validation", DATA.validation), ("test", DATA.test)):
        for precision, file in files.items():
            recomputed = accuracy_of(file, split)
            assert content["accuracy"][name][precision] == pytest.approx(recomputed, abs=1.5 / len(split))
            assert f"{content['accuracy'][name][precision]:.2%}" in shown.stdout
        assert content["accuracy"][name]["float32"] > 0.5
        assert abs(content["accuracy"][name]["int8"] - content["accuracy"][name]["float32"]) <= 0.02
    assert content["bytes"] == {precision: file.stat().st_size for precision, file in files.items()}
    assert content["settings"]["calibration_images"] == 100
    (times,) = content["latency"].values()
    assert times["times_as_long"] == pytest.approx(times["int8_ms"] / times["float32_ms"])
    assert times["timed_on"] == "cpu+onnxruntime?threads=1&batch=1"
    row = QuantizationRow.model_validate(content)
    assert row.warnings == warnings_of(row.accuracy, row.latency)
    for line in content["warnings"]:
        assert line in shown.stdout

    evaluated = json.loads(run("evaluate", searched, "--json").stdout)["targets"][0]
    assert evaluated["int8_accuracy"] == content["accuracy"]["test"]["int8"]
    first = files["int8"].read_bytes()
    assert timed(run, "export", place, *asked).exit_code == 0
    assert files["int8"].read_bytes() == first
    # What belonged to the network before it was trained further does not stay beside the new one.
    assert run("train", searched, "--epochs", 1).exit_code == 0
    assert not files["int8"].exists()
    assert not (place / "quantization.json").exists()
    assert "int8_accuracy" not in json.loads(run("evaluate", searched, "--json").stdout)["targets"][0]


def test_drawbacks_of_int8_are_reported() -> None:
    accuracy = {"validation": {"float32": 0.9, "int8": 0.895}, "test": {"float32": 0.9, "int8": 0.87}}
    slow, fast = (
        {
            "cpu": QuantizedTiming(
                float32_ms=1.0, float32_error_ms=0.1, int8_ms=ms, int8_error_ms=0.1, times_as_long=ms, timed_on="cpu"
            )
        }
        for ms in (1.5, 0.5)
    )
    assert warnings_of(accuracy, fast) == ["int8 costs 3.0 points of accuracy on the test images"]
    assert warnings_of({}, slow) == ["int8 is not faster on cpu: it takes 1.50 times as long"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quantize", "int4", "--device", "cpu"), ("unknown precision 'int4'", "use --quantize int8")),
        ((), ("already ONNX files", "--quantize int8")),
        (("--quantize", "int8", "--architecture", POOLS_ALONE), ("--architecture cannot be given",)),
        (("--quantize", "int8", "--device", "cpu+openvino"), ("made for onnxruntime and litert", "--device cpu")),
        (("--quantize", "int8", "--device", "cpu?threads=9999"), ("9999 threads are more than the", "or fewer")),
        (("--quantize", "int8"), ("made up, which is not this machine",)),
        (
            ("--quantize", "int8", "--device", "cpu", "--calibration-images", 5000),
            ("only 10[0-9][0-9] training images", "--calibration-images"),
        ),
        (("--quantize", "int8", "--device", "cpu", "--data", "digits?size=8"), ("the images of digits", )),
    ],
)  # fmt: skip
def test_impossible_exports_are_one_clear_error(
    run: Run, searched: Path, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert_one_clear_line(run("export", searched, *arguments), *words)


def test_without_a_run_there_is_nothing_to_quantise(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "network.onnx"
    asked = ("export", "--architecture", POOLS_ALONE, "--out", out, "--quantize", "int8")
    assert_one_clear_line(run(*asked), "--quantize cannot be given: without a run there are no images")
    assert_one_clear_line(run("export"), "nothing to export")
    assert_one_clear_line(run("export", tmp_path / "none", "--quantize", "int8"), "holds no finished search")
    assert not out.exists()


@pytest.mark.parametrize(
    "device", ["cpu+openvino", "cpu+ncnn", "cpu+executorch", "cpu+torch", "cuda:0+torch", "browser"]
)
def test_other_runtimes_refuse_int8(run: Run, tmp_path: Path, device: str) -> None:
    refused = run("profile", "--device", f"{device}?precision=int8", "--out", tmp_path / "table.json")
    assert_one_clear_line(refused, "is not profiled with precision 'int8'", "use float32")
    refused = run("profile", "--device", "cpu?precision=int4", "--out", tmp_path / "table.json")
    assert_one_clear_line(refused, "'int4'", "use float32 or int8")


@pytest.mark.slow
def test_a_network_that_was_not_quantised_cannot_be_verified_in_int8(run: Run, searched: Path) -> None:
    (searched / "90pct" / "network_int8.onnx").unlink(missing_ok=True)
    refused = run("verify", searched, "--device", INT8)
    assert_one_clear_line(refused, "network_int8.onnx does not exist", "hwnas export .*90pct --quantize int8")
    refused = run("verify", searched, "--device", "cpu?threads=9999")
    assert_one_clear_line(refused, "9999 threads are more than the", "threads=[0-9]+ or fewer")


def test_tables_of_int8_and_float32_do_not_mix(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(get_space("nasbench201"), SMALL))
    integers = table.model_copy(update={"runtime": table.runtime.model_copy(update={"precision": "int8"})})
    with pytest.raises(HwnasError, match=r"runtime\.precision is 'float32' and 'int8'"):
        merge_tables({"a": table, "b": integers})
    for name, each in (("float32.json", table), ("int8.json", integers)):
        write_table(tmp_path / name, each)
    merged = run("table", "merge", tmp_path / "float32.json", tmp_path / "int8.json", "--out", tmp_path / "both.json")
    assert_one_clear_line(merged, "runtime.precision")
    assert not (tmp_path / "both.json").exists()


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.usefixtures("short_timings")
def test_a_search_for_the_quantised_device_keeps_its_budget_there(run: Run, tmp_path: Path) -> None:
    table, out = tmp_path / "int8.json", tmp_path / "run"
    sizes = ("--channels", 4, "--cells", 1, "--input", "3x16x16")
    quick = ("--rounds", 6, "--fit-networks", 2, "--report-networks", 2)
    measured = profile(run, "--device", INT8, *sizes, *quick, "--out", table)
    assert measured.runtime.precision == "int8"
    assert "int8" in run("table", "show", table).stdout
    assert len(next(iter(measured.networks.values()))) == 4
    refused = run("profile", *sizes, *quick, "--accept-noise", "--out", table)
    assert_one_clear_line(refused, "a table of another device or runtime", "int8")

    words = ("search", "--table", table, "--data", "digits?size=16", "--recipe", "snas-short", "--channels", 4)
    words += ("--cells", 1, "--epochs", 1, "--child-epochs", 2, "--budget", "90%", "--verify", "--out", out, "--json")
    result = timed(run, *words)
    (row,) = json.loads(result.stdout)["targets"]
    assert result.exit_code == (0 if row["kept"] else 1), result.output
    assert row["timed_on"] == "cpu+onnxruntime?threads=1&batch=1&precision=int8"
    assert row["kept"] == (row["measured_ms"] <= row["budget_ms"] + row["measured_error_ms"])
    place = out / "90pct"
    kinds = {node.op_type for node in onnx.load(place / "network_int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load(place / "network.onnx").graph.node}
    content = json.loads((place / "architecture.json").read_text())
    for name, split in (("validation", DATA.validation), ("test", DATA.test)):
        assert row["int8"][f"{name}_accuracy"] == content["int8"][f"{name}_accuracy"]
        recomputed = accuracy_of(place / "network_int8.onnx", split)
        assert row["int8"][f"{name}_accuracy"] == pytest.approx(recomputed, abs=1.5 / len(split))
    assert read_table(out / "table.json").runtime.precision == "int8"

    again = json.loads(timed(run, "verify", out, "--json").stdout)["targets"][0]
    assert again["timed_on"].endswith("precision=int8")
    (place / "network_int8.onnx").unlink()
    assert_one_clear_line(run("verify", out), "network_int8.onnx does not exist")
