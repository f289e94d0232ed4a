"""The ONNX opset of a device: of its models, of its table, and of the network that ships."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from hwnas.errors import HwnasError
from hwnas.export.timing import spec_of
from hwnas.profiling.models import Repeated, Whole, torch_model, write_model
from hwnas.profiling.plan import ProfilePlan, existing
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import parse_device
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.runtimes.opset import OPSETS, opset_of
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line
from support.searches import FEW_SEARCH
from support.spaces import SMALL
from support.tables import make_table, of_this_machine

SIZED = SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"])
TINY = SizedSpace(SPACES["nasbench201"], Setting(channels=4, depth=1, height=9, width=9))
MIXED = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"


def file_opset(path: Path) -> int:
    (only,) = onnx.load(path).opset_import
    return only.version


def of_opset(table: LatencyTable, opset: int) -> LatencyTable:
    return table.model_copy(update={"runtime": table.runtime.model_copy(update={"options": {"opset": opset}})})


def test_a_spec_names_an_opset_and_the_usual_one_is_not_written() -> None:
    spec = parse_device("cpu?opset=13&threads=2")
    assert (spec.opset, spec.text) == (13, "cpu+onnxruntime?threads=2&batch=1&opset=13")
    assert parse_device(spec.text) == spec
    assert parse_device("cpu?opset=18") == parse_device("cpu")
    assert "opset" not in parse_device("cpu").text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu?opset=10", "use 11 to 20"),
        ("cpu?opset=latest", "'latest'"),
        ("cpu+torch?opset=13", "runtime torch reads no ONNX files"),
        ("cpu?precision=int8&opset=12", "use opset=13 or a later one"),
    ],
)
def test_opsets_that_cannot_be_written_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError) as caught:
        parse_device(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("opset", OPSETS)
def test_models_of_every_opset_compute_the_same_as_torch(opset: int, tmp_path: Path) -> None:
    """Exported as a whole; what is assembled for the timing is of the same opset and passes ONNX's checker."""
    module, inputs = torch_model(Whole(TINY, TINY.space.parse(MIXED)), 1)
    inputs = [torch.randn_like(x) for x in inputs]
    write_onnx(module, inputs, tmp_path / "whole.onnx", opset=opset)
    assert file_opset(tmp_path / "whole.onnx") == opset
    session = onnxruntime.InferenceSession(tmp_path / "whole.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"input0": inputs[0].numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(scores), module.eval()(*inputs), rtol=1e-4, atol=1e-5)
    for number, model in enumerate((Whole(TINY, TINY.space.parse(MIXED)), Repeated(Workload("sum", 4, 4, 9, 9), 2))):
        path = tmp_path / f"{number}.onnx"
        write_model(model, parse_device(f"cpu?opset={opset}"), path)
        onnx.checker.check_model(onnx.load(path), full_check=True)
        assert file_opset(path) == opset
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_int8_models_keep_the_opset(tmp_path: Path) -> None:
    write_model(
        Repeated(Workload("nor_conv_1x1", 4, 4, 9, 9), 2),
        parse_device("cpu?precision=int8&opset=13"),
        tmp_path / "m.onnx",
    )
    model = onnx.load(tmp_path / "m.onnx")
    assert {imported.domain: imported.version for imported in model.opset_import}[""] == 13
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_tables_of_two_opsets_are_tables_of_two_devices(tmp_path: Path) -> None:
    table = of_this_machine(SIZED)
    older = table.model_copy(
        update={"runtime": table.runtime.model_copy(update={"options": {**table.runtime.options, "opset": 13}})}
    )
    assert older.sha256 != table.sha256
    write_table(tmp_path / "t.json", older)
    assert opset_of(read_table(tmp_path / "t.json").runtime.options) == 13
    assert spec_of(older) == parse_device("cpu?opset=13")
    start = ask(parse_device("cpu"))
    found = existing(ProfilePlan(parse_device("cpu?opset=13"), SIZED), tmp_path / "t.json", start)
    assert found
    assert found.runtime == older.runtime
    with pytest.raises(HwnasError, match=r"table of another device or runtime .*float32, opset 13"):
        existing(ProfilePlan(parse_device("cpu"), SIZED), tmp_path / "t.json", start)


def test_an_opset_that_a_table_makes_up_is_refused() -> None:
    with pytest.raises(HwnasError, match="opset '99'"):
        spec_of(of_opset(make_table(SIZED), 99))


@pytest.mark.slow
def test_the_network_that_ships_is_of_its_tables_opset(run: Run, tmp_path: Path) -> None:
    names = {"npu": 13, "server": 18}
    for name, opset in names.items():
        write_table(tmp_path / f"{name}.json", of_opset(make_table(SIZED), opset))
    tables = [word for name in names for word in ("--table", tmp_path / f"{name}.json")]
    once = ("--epochs", 1, "--child-epochs", 0)
    result = run("search", *tables, *FEW_SEARCH, *once, "--budget", "moderate", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for name, opset in names.items():
        folder = tmp_path / "run" / f"{name}_moderate"
        assert file_opset(folder / "network.onnx") == file_opset(folder / "cells" / "cell.onnx") == opset
        assert onnx.load(folder / "network.onnx").producer_name == "hwnas"
    npu = tmp_path / "run" / "npu_moderate"
    assert_one_clear_line(run("verify", npu, "--device", "cpu"), "network.onnx is of ONNX opset 13", "opset=13")
    joint = ("--budget", "60%@npu,60%@server")
    result = run("search", *tables, *FEW_SEARCH, *once, *joint, "--out", tmp_path / "joint")
    assert_one_clear_line(result, "several opsets: 13 by npu, 18 by server", "one opset=")
