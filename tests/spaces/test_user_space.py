"""Spaces and images that users define: valid and invalid files, searches of them, and the exported networks."""

from __future__ import annotations

import json
import re
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hwnas.cost.memory import memory_access_bytes
from hwnas.cost.model import build_cost_models
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.export.network import export_network, open_session
from hwnas.files import read_json
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network, count_workload
from hwnas.networks.supernet import Supernet
from hwnas.operations import build_operation
from hwnas.spaces import SearchSpace, Setting, SizedSpace, Workload, get_space
from hwnas.spaces.convolutions import Convolution, read_convolution
from hwnas.spaces.encoding import decode
from hwnas.tables.io import read_table, write_table
from hwnas.tables.network_key import choose_network
from hwnas.tables.schema import Correction
from support.command import Run, assert_one_clear_line
from support.tables import make_table

PAGE = (Path(__file__).parents[2] / "docs/how-to/own-space.md").read_text()
OWN: dict[str, Any] = {
    "name": "mine",
    "operations": [
        "none",
        "skip_connect",
        {"name": "sep_conv_7x7", "kind": "separable_conv", "kernel": 7},
        {"name": "far", "kind": "dilated_conv", "kernel": 3, "dilation": 4},
    ],
    "cells": {"cell": {"nodes": 3, "edges": [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]}},
    "network": {"stages": [{"cell": "cell"}, {"cell": "cell", "channels": 2, "reduction": "residual_reduction"}]},
    "settings": {"small": {"channels": 4, "depth": 1, "height": 16, "width": 16}},
}
PAIR: dict[str, Any] = {
    **OWN,
    "name": "pair",
    "operations": ["none", "skip_connect", {"name": "top", "kind": "pool", "pool": "max"}, "nor_conv_5x5"],
    "cells": {
        "normal": {"inputs": 2, "nodes": 2, "outputs": [2, 3]},
        "reduce": {"inputs": 2, "nodes": 2, "outputs": [2, 3]},
    },
    "network": {
        "stem": {"channels": 3},
        "stages": [{"cell": "normal"}, {"cell": "normal", "channels": 2, "reduction": "reduce"}],
        "head": "pool_linear",
    },
}
NASBENCH201 = {
    "name": "again",
    "operations": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"],
    "cells": {"cell": {"nodes": 3}},
    "network": {
        "stages": [
            {"cell": "cell"},
            {"cell": "cell", "channels": 2, "reduction": "residual_reduction"},
            {"cell": "cell", "channels": 4, "reduction": "residual_reduction"},
        ]
    },
    "settings": {"cifar": {"channels": 16, "depth": 5}},
    "macs_convention": "conv_linear",
}
DARTS = {
    "name": "darts-again",
    "operations": [
        *("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"),
        *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
    ],
    "cells": {kind: {"inputs": 2, "nodes": 4, "outputs": [2, 3, 4, 5]} for kind in ("normal", "reduce")},
    "network": {
        "stem": {"channels": 3},
        "stages": [
            {"cell": "normal"},
            {"cell": "normal", "channels": 2, "reduction": "reduce"},
            {"cell": "normal", "channels": 4, "reduction": "reduce"},
        ],
        "head": "pool_linear",
    },
    "settings": {"search": {"channels": 16, "depth": 2, "pool_norm": True}, "cifar": {"channels": 36, "depth": 6}},
}


def write(folder: Path, content: Any, name: str = "space.yaml") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return get_space(str(write(tmp_path_factory.mktemp("own"), OWN)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return get_space(str(write(tmp_path_factory.mktemp("pair"), PAIR)))


def table_of(space: SearchSpace, setting: Setting, path: Path) -> Path:
    """Write a table of made-up latencies for one network and return its file."""
    correction = {SizedSpace(space, setting).key: Correction(offset_ms=0, scale=1, networks=0)}
    write_table(path, make_table(SizedSpace(space, setting)).model_copy(update={"correction": correction}))
    return path


@pytest.mark.parametrize(
    ("content", "name", "sizes"),
    [
        (NASBENCH201, "nasbench201", {"cifar": "cifar"}),
        (DARTS, "darts", {"search": "search", "cifar": "cifar"}),
    ],
)
def test_the_papers_spaces_written_as_files_have_their_networks(
    content: dict, name: str, sizes: dict[str, str], tmp_path: Path
) -> None:
    space, known = get_space(str(write(tmp_path, content))), get_space(name)
    assert (space.operations, space.num_architectures) == (known.operations, known.num_architectures)
    assert dict(space.cells) == dict(known.cells)
    for mine, its in sizes.items():
        network = SizedSpace(known, known.settings[its]).network
        assert SizedSpace(space, space.settings[mine]).network.parts == network.parts


@pytest.mark.slow
def test_published_counts_of_darts_written_as_a_file(run: Run, tmp_path: Path) -> None:
    space, darts = get_space(str(write(tmp_path, DARTS))), get_space("darts")
    text = space.format(space.architecture(darts.parse("DARTS_V2").cells))
    said = run(
        "space", "count", "--space", tmp_path / "space.yaml", "--setting", "cifar", "--architecture", text, "--json"
    )
    assert (json.loads(said.stdout)["params"], json.loads(said.stdout)["macs"]) == (3_349_342, 539_123_328)


@given(st.data())
def test_notation_round_trips(own: SearchSpace, pair: SearchSpace, data: st.DataObject) -> None:
    space = data.draw(st.sampled_from([own, pair]))
    choices = data.draw(st.lists(st.integers(0, 3), min_size=space.num_edges, max_size=space.num_edges))
    architecture = decode(space, np.array(choices))
    text = space.format(architecture)
    assert space.parse(text) == architecture
    with pytest.raises(HwnasError):
        space.parse(text.replace("~0", "~9"))


@pytest.mark.parametrize("text", ["", "|far~0|", "normal:|far~0|", "|far~0|+|far~0|far~1|+|far~2|far~1|", "a;b", "|||"])
def test_other_texts_are_refused(own: SearchSpace, text: str) -> None:
    with pytest.raises(HwnasError, match="not an architecture of space mine"):
        own.parse(text)


@given(
    st.sampled_from(["relu_conv_bn", "separable_conv", "dilated_conv"]),
    st.sampled_from([1, 3, 9, 31]),
    st.integers(1, 16),
)
def test_names_of_convolutions_describe_them(kind: str, kernel: int, dilation: int) -> None:
    convolution = Convolution(kind, kernel, dilation if kind == "dilated_conv" else 1)
    assert read_convolution(convolution.op) == convolution
    layers = [
        m for m in build_operation(Workload(convolution.op, 2, 2, 8, 8)).modules() if isinstance(m, torch.nn.Conv2d)
    ]
    assert {(m.kernel_size[0], m.dilation[0]) for m in layers} - {(1, 1)} == {(kernel, convolution.dilation)} - {(1, 1)}


@pytest.mark.parametrize(
    "op", ["nor_conv_4x4", "sep_conv_3x5", "sep_conv_33x33", "dil_conv_3x3_d2", "nor_conv_3x3_d3", "conv_3x1_1x5"]
)
def test_other_names_are_unknown_operations(op: str) -> None:
    with pytest.raises(HwnasError, match="unknown operation"):
        build_operation(Workload(op, 4, 4, 8, 8))


def random_architectures(space: SearchSpace, number: int) -> list:
    generator = np.random.default_rng(3)
    return [decode(space, generator.integers(len(space.operations), size=space.num_edges)) for _ in range(number)]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["own", "pair"])
def test_costs_add_up_to_what_fvcore_counts_and_onnx_computes_the_same(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    space = request.getfixturevalue(which)
    sizes = space.setting("small", height=16, width=12)
    models = build_cost_models(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))
    torch.manual_seed(0)
    supernet = Supernet(SizedSpace(space, sizes)).eval()
    images = torch.randn(3, 3, 16, 12)
    for architecture in random_architectures(space, 3):
        counts = count_network(ChildNetwork(SizedSpace(space, sizes), architecture))
        assert models["params"].predict(architecture) == counts.params
        assert models["macs"].predict(architecture) == counts.macs_fvcore
        child = supernet.child(architecture).eval()
        export_network(child, tmp_path / "network.onnx", {})
        with torch.no_grad():
            expected = child(images).numpy()
        np.testing.assert_allclose(
            open_session(tmp_path / "network.onnx")(images.numpy()), expected, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("op", ["nor_conv_7x7", "sep_conv_9x9", "dil_conv_3x3_d5"])
def test_bytes_and_parameters_of_other_kernels(op: str) -> None:
    """By hand at 4 channels and 6x5 images: a convolution reads an image and its weights and writes an image."""
    image, norm = 4 * 30, 8
    kernel = int(op.split("x")[1].split("_")[0]) ** 2
    weights, layers = {"nor": (16 * kernel, 1), "sep": (8 * kernel + 32, 4), "dil": (4 * kernel + 16, 2)}[op[:3]]
    workload = Workload(op, 4, 4, 6, 5)
    assert count_workload(workload).params == weights + norm * (2 if op[:3] == "sep" else 1)
    assert memory_access_bytes(workload) == 4 * (2 * image * layers + weights)


def changed(path: str, value: Any, content: dict = OWN) -> dict:
    """Return ``content`` with another value at a dotted path; None removes it."""
    result: Any = deepcopy(content)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inner = result
    for step in parents:
        inner = inner[step]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed("operations.2.kind", "warp"), ["operations.2.kind"]),
        (changed("operations.2.kernel", 6), ["operations.2", "odd"]),
        (changed("operations.2.kernel", 99), ["operations.2.kernel"]),
        (changed("operations.2.kernel", True), ["operations.2.kernel"]),
        (changed("operations.2.dilation", 2), ["operations.2", "dilation"]),
        (changed("operations.3", "warp"), ["operations.3", "warp"]),
        (changed("operations.3", "skip_connect"), ["operations", "twice"]),
        (changed("operations.3", {"name": "wide", "kind": "separable_conv", "kernel": 7}), ["same operation"]),
        (changed("operations.2.name", "sep_conv_3x3"), ["another operation"]),
        (changed("operations.2.name", "train"), ["train", "torch"]),
        (changed("operations.1", {"name": "identity", "kind": "skip_connect"}), ["must be named skip_connect"]),
        (changed("operations.0", "nor_conv_3x3"), ["none is missing"]),
        (changed("cells.cell.edges.0", [2, 1]), ["cells.cell", "backwards"]),
        (changed("cells.cell.edges.0", [1, 1]), ["cells.cell", "backwards"]),
        (changed("cells.cell.edges.0", [1, 0]), ["cells.cell", "not from a node"]),
        (changed("cells.cell.edges.0", [0, 9]), ["cells.cell", "not from a node"]),
        (changed("cells.cell.edges.0", [0, 2]), ["cells.cell", "twice"]),
        (changed("cells.cell.edges", [[0, 1], [1, 2]]), ["cells.cell", "node 3 has no edge"]),
        (changed("cells.cell.edges", [[0, 1], [0, 2], [1, 3]]), ["cells.cell", "node 2 is unused"]),
        (changed("cells.cell.nodes", 0), ["cells.cell.nodes"]),
        (changed("cells.cell.nodes", 10**9), ["cells.cell.nodes"]),
        (changed("cells.cell.outputs", []), ["cells.cell.outputs"]),
        (changed("cells.cell.outputs", [0]), ["outputs"]),
        (changed("cells.cell.colour", "red"), ["cells.cell.colour"]),
        (changed("cells.cell.least_inputs", 2), ["cells.cell", "least_inputs is 2, but node 1 has 1 edges"]),
        (changed("cells.cell.least_inputs", -1), ["cells.cell.least_inputs"]),
        (changed("operations.3", {"name": "top", "kind": "pool", "pool": "avg", "kernel": 5}), ["kernel 3, 5 or 7"]),
        (changed("cells.train", OWN["cells"]["cell"]), ["cells.train"]),
        (changed("cells.other", OWN["cells"]["cell"]), ["cells.other"]),
        (changed("network.stages", []), ["network.stages"]),
        (changed("network.stages.0.cell", "mars"), ["network.stages.0.cell", "mars"]),
        (changed("network.stages.1.reduction", "mars"), ["network.stages.1.reduction", "mars"]),
        (changed("network.stages.1.reduction", "cell"), ["network.stages", "reduction"]),
        (changed("network.head", "hydra"), ["network.head"]),
        (changed("settings.small.height", 10**9), ["settings.small.height"]),
        (changed("settings.small.height", 1), ["settings.small", "too small"]),
        (changed("settings", {}), ["settings"]),
        (changed("search_setting", "huge"), ["search_setting", "huge"]),
        (changed("name", "darts"), ["darts"]),
        (changed("name", "../x"), ["name"]),
        (changed("name", None), ["name"]),
        (changed("speed", 9), ["speed"]),
        ("", ["space.yaml"]),
        ("- 1", ["space.yaml"]),
        ("name: [", ["not valid YAML"]),
        ("name: a\nname: b", ["the key name is there twice"]),
        ("a: &x [1]\nb: *x", ["not valid YAML"]),
        ("[" * 5000, ["not valid YAML"]),
        ("a: " + "9" * 5000, ["not valid YAML"]),
        ("!!python/object/apply:os.getcwd []", ["not valid YAML"]),
        ("x: 1\n" * 20_000, ["larger than"]),
        ("\x00", ["not a text file"]),
    ],
)
def test_invalid_files_give_one_line_with_file_and_field(
    run: Run, tmp_path: Path, content: Any, words: list[str]
) -> None:
    assert_one_clear_line(run("space", "show", "--space", write(tmp_path, content)), "space.yaml", *words)


def test_spaces_that_are_not_there_are_refused(run: Run, tmp_path: Path) -> None:
    assert_one_clear_line(run("space", "show", "--space", tmp_path / "no.yaml"), "no.yaml", "No such file")
    assert_one_clear_line(run("space", "show", "--space", "no.such.module:SPACE"), "no.such.module")
    assert_one_clear_line(run("space", "show", "--space", "json:dumps"), "json:dumps", "function")
    assert_one_clear_line(run("space", "show", "--space", "json:SPACE"), "json", "SPACE")
    assert_one_clear_line(run("space", "show", "--space", "hwnas.spaces.darts:DARTS"), "darts", "taken")


ORIGINAL = yaml.safe_dump(OWN, sort_keys=False)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_a_space_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    """Random cuts and insertions give either a space or an HwnasError that names the file."""
    text = ORIGINAL
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(st.text("0123456789-[]{}:,& *!abc\n\t'\"#%\x00é", max_size=5)) + text[stop:]
    file = write(tmp_path, text)
    try:
        space = get_space(str(file))
    except HwnasError as error:
        problem = error.problem
    else:
        assert SizedSpace(space, space.settings[space.search_setting]).network.workloads()
        return
    assert str(file) in problem
    assert "\n" not in problem


@pytest.mark.parametrize(("definition", "key"), [(OWN, "mine@139c211d054f"), (PAIR, "pair@c773682d9b5b")])
def test_tables_and_runs_of_older_versions_fit(definition: dict[str, Any], key: str, tmp_path: Path) -> None:
    """The key is written in tables: fields that hwnas has gained since leave it as it was."""
    assert get_space(str(write(tmp_path, definition))).key == key


@pytest.mark.slow
def test_another_definition_of_the_same_name_is_recognised_by_its_hash(run: Run, tmp_path: Path) -> None:
    first = write(tmp_path, OWN, "first.yaml")
    second = write(tmp_path, changed("operations.3.dilation", 5), "second.yaml")
    space, other = get_space(str(first)), get_space(str(second))
    assert space.name == other.name
    assert space.key != other.key
    assert {w.op for w in SizedSpace(other, other.settings["small"]).network.workloads()} >= {
        "dil_conv_3x3_d5",
        "sep_conv_7x7",
    }
    table = table_of(space, space.settings["small"], tmp_path / "table.json")
    search = ("search", "--table", table, "--data", "digits?size=16", "--epochs", 1, "--child-epochs", 0)
    out = tmp_path / "run"
    keys = (re.escape(space.key), re.escape(other.key))
    assert_one_clear_line(run(*search, "--space", second, "--out", out), *keys)
    assert_one_clear_line(run(*search, "--out", out), "mine", "--space")
    assert run(*search, "--space", first, "--out", out).exit_code == 0
    both = table_of(other, other.settings["small"], tmp_path / "other.json")
    again = ("search", "--table", both, *search[3:], "--space", second, "--out", out)
    assert_one_clear_line(run(*again), "run", *keys)
    assert read_json(out / "manifest.json", "")["space_definition"]["sha256"].startswith(space.key[-12:])
    first.unlink()  # the run has its own
    found = run("derive", out, "--json")
    assert found.exit_code == 0, found.output
    page = tmp_path / "page" / "report.html"
    assert run("report", out, "--out", page).exit_code == 0
    assert re.search(r"--space=\S*report_files/space.yaml", page.read_text())
    assert get_space(str(page.parent / "report_files/space.yaml")).key == space.key
    shutil.copy(second, out / "space.yaml")
    assert_one_clear_line(run("derive", out), *keys)


def test_settings_may_be_added_without_a_new_table(tmp_path: Path) -> None:
    space = get_space(str(write(tmp_path, OWN)))
    table = read_table(table_of(space, space.settings["small"], tmp_path / "table.json"))
    more = write(tmp_path, changed("settings.large", {"channels": 64}))
    assert choose_network(table, str(more), None).setting == space.settings["small"]


MODULE = """
import numpy as np
from hwnas.spaces import Cell, SearchSpace, Setting
from hwnas.spaces.build import Layout, NetworkStage
from hwnas.spaces.notation import Notation

OPERATIONS = {"none": "none", "skip_connect": "skip_connect", "nor_conv_5x5": "nor_conv_5x5"}
CELLS = {"cell": Cell(1, 2, ((0, 1), (0, 2), (1, 2)), (2,))}
NOTATION = Notation("python_space", CELLS, "nor_conv_5x5")
SPACE = SearchSpace(
    name="python_space", operations=tuple(OPERATIONS), cells=CELLS,
    settings={"small": Setting(channels=4, depth=1, height=12, width=10, classes=3)}, search_setting="small",
    published_setting=lambda text: "small", macs_convention="fvcore", parse_cells=NOTATION.parse,
    format_cells=NOTATION.format,
    build_network=Layout(OPERATIONS, CELLS, (NetworkStage("cell"),), "pool_linear").network,
    published={},
)
random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (90, 12, 10, 3), dtype=np.uint8)
LABELS = np.arange(90) % 3

def pairs(): return IMAGES, LABELS
def splits():
    return {"train": (IMAGES[:60].transpose(0, 3, 1, 2), LABELS[:60]), "classes": ["a", "b", "c"], "flip": False,
            "validation": lambda: (IMAGES[60:75], LABELS[60:75]), "test": lambda: 1 / 0}
def fails(): raise KeyError("gone\\nfor good")
def floats(): return IMAGES / 255, LABELS
def flat(): return IMAGES[:, :, :, 0], LABELS
def short(): return IMAGES, LABELS[1:]
def gaps(): return IMAGES, LABELS * 2
def below(): return IMAGES, LABELS - 1
def alone(): return IMAGES
def odd(): return {"train": (IMAGES, LABELS), "colour": 1}
def unlike(): return {"train": (IMAGES, LABELS), "validation": (IMAGES[:, :9], LABELS)}
def strange(): return {"train": (IMAGES, LABELS), "validation": (IMAGES, LABELS + 5)}
def cubes(): return IMAGES[:, :3, :3], LABELS
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_module_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_module_of_a_test"


def test_a_space_and_images_in_python_are_searched_and_exported(run: Run, tmp_path: Path, module: str) -> None:
    spec, out = f"{module}:SPACE", tmp_path / "run"
    space = get_space(spec)
    assert get_space(spec) is space
    table = table_of(space, space.settings["small"], tmp_path / "table.json")
    data = f"python:{module}:pairs?train=30"
    line = ("search", "--space", spec, "--table", table, "--data", data, "--epochs", 1, "--child-epochs", 0)
    result = run(*line, "--batch-size", 8, "--out", out)
    assert result.exit_code == 0, result.output
    assert not (out / "space.yaml").exists()
    network = onnx.load(out / "moderate/network.onnx")
    assert [d.dim_value for d in network.graph.input[0].type.tensor_type.shape.dim[1:]] == [3, 12, 10]
    assert run("evaluate", out).exit_code == 0


def test_python_data_is_divided_or_taken_as_it_is(module: str) -> None:
    data = load_data(f"python:{module}:pairs")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [54, 18, 18]
    assert (data.shape, data.labels, data.flip) == ((3, 12, 10), ("0", "1", "2"), True)
    found = torch.cat([s.images for s in (data.train, data.validation, data.test)])
    assert len({bytes(image.numpy().tobytes()) for image in found}) == 90
    mine = load_data(f"python:{module}:splits?validation=6")
    assert ([len(s) for s in (mine.train, mine.validation)], mine.labels, mine.flip) == (
        [60, 6],
        ("a", "b", "c"),
        False,
    )
    images = __import__(module).IMAGES
    assert torch.equal(mine.train.images, torch.from_numpy(images[:60]).permute(0, 3, 1, 2))
    with pytest.raises(HwnasError, match="ZeroDivisionError"):
        mine.load_test()  # which a search never calls


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fails", ["fails failed", "KeyError", "gone"]),
        ("floats", ["train images", "float64"]),
        ("flat", ["train images", "90, 12, 10"]),
        ("short", ["train labels", "89"]),
        ("gaps", ["train labels", "0 to 4"]),
        ("below", ["label below 0"]),
        ("alone", ["train is a ndarray"]),
        ("odd", ["colour"]),
        ("unlike", ["validation images", "9, 10"]),
        ("strange", ["validation has label 7"]),
        ("cubes", ["colour"]),
        ("number", ["not a function"]),
        ("missing", ["has no missing"]),
        ("pairs?size=8", ["size"]),
        ("pairs?train=999", ["999"]),
    ],
)
def test_bad_python_data_is_one_line(
    run: Run, table_file: Path, tmp_path: Path, module: str, name: str, words: list
) -> None:
    data = f"python:{module}:{name}"
    assert_one_clear_line(run("search", "--table", table_file, "--data", data, "--out", tmp_path / "run"), *words)


@pytest.mark.slow
def test_images_that_are_not_square_are_searched_and_exported(run: Run, tmp_path: Path, own: SearchSpace) -> None:
    """Search images of 64x48 pixels in four classes."""
    generator = np.random.default_rng(0)
    for label in "abcd":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 255, (64, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    sizes = own.setting("small", height=64, width=48, classes=4)
    table, out = table_of(own, sizes, tmp_path / "table.json"), tmp_path / "run"
    line = ("search", "--space", own.spec, "--table", table, "--data", f"imagefolder:{tmp_path / 'images'}")
    result = run(*line, "--epochs", 1, "--child-epochs", 1, "--batch-size", 8, "--out", out)
    assert result.exit_code == 0, result.output
    session = open_session(out / "moderate/network.onnx")
    assert session(np.zeros((2, 3, 64, 48), np.float32)).shape == (2, 4)
