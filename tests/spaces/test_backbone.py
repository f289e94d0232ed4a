"""A user's own torch network as a space: its members are the network itself, its errors name the layer."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from hwnas.cost.counts import count_metrics
from hwnas.cost.memory import memory_access_bytes
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.export.network import export_network, open_session
from hwnas.networks.child import ChildNetwork
from hwnas.networks.plain import plain_network, require_plain
from hwnas.networks.pretrained import load_pretrained
from hwnas.networks.supernet import Supernet, only
from hwnas.operations import build_operation
from hwnas.spaces import SPACES, SearchSpace, SizedSpace, get_space, num_inputs, operation_of
from hwnas.spaces.backbone import BackboneSpace, import_backbone
from hwnas.spaces.builtin_operations import SKIP
from hwnas.spaces.encoding import every_choice
from hwnas.spaces.layers import LayerTrace
from hwnas.spaces.operation import counted_layers
from hwnas.spaces.space_files import import_space
from hwnas.spaces.user_modules import build_on_meta, trace_module
from support.backbones import EXAMPLE, SMALL, WIDE
from support.tables import make_table
from support.torchvision_models import mobilenet_v2

Declare = Callable[..., str]
CHOSEN = "kernel5_hidden12 kernel3_hidden8 skip pool_avg hidden24"


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Write a module, of the small network with some text replaced, and return the value for ``--space``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(*replaced: tuple[str, str], text: str = SMALL) -> str:
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "my_backbone.py").write_text(text)
        monkeypatch.delitem(sys.modules, "my_backbone", raising=False)
        import_backbone.cache_clear()
        return "python:my_backbone:net"

    return write


def sized(space: SearchSpace) -> SizedSpace:
    return SizedSpace.named(space)


def macs(module: torch.nn.Module, *shape: int) -> float:
    counted = FlopCountAnalysis(module.eval(), torch.zeros(1, *shape))
    return float(counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


@pytest.mark.slow
def test_a_member_is_torchvisions_mobilenet_v2_and_weights_go_both_ways() -> None:
    """Logits, parameters and multiply-accumulates, and a state of one that the other loads."""
    space = get_space("python:support.backbones:MOBILENET_V2")
    torch.manual_seed(0)
    theirs, images = mobilenet_v2().eval(), torch.randn(2, 3, 64, 64)
    chosen = space.parse(" ".join(["expand_ratio6"] * 16))
    child = ChildNetwork(sized(space), chosen, prune=True).eval()
    fit = load_pretrained(child, theirs.state_dict(), "mobilenet_v2.pth")
    assert (fit.params, fit.unfit, fit.unused) == (3_504_872, {}, [])
    with torch.no_grad():
        assert torch.equal(child(images), theirs(images))
    other = mobilenet_v2().eval()
    other.load_state_dict(plain_network(child).state_dict())
    with torch.no_grad():
        assert torch.equal(other(images), theirs(images))
    counts = count_metrics(sized(space))
    assert counts["params"].predict(chosen) == 3_504_872
    assert counts["macs"].predict(chosen) == macs(theirs, 3, 64, 64)
    narrow = ChildNetwork(sized(space), space.parse(" ".join(["expand_ratio3"] + ["expand_ratio6"] * 15)), prune=True)
    assert list(load_pretrained(narrow, theirs.state_dict(), "mobilenet_v2.pth").unfit) == ["parts.2.edges.0"]


def test_costs_of_all_members_add_up(declare: Declare) -> None:
    space = get_space(declare())
    choices = every_choice(space)
    assert len(choices) == space.num_architectures == (4 + 4**2 + 4**3) * 2 * 3
    models = build_cost_models(make_table(sized(space)), sized(space))
    for row in choices[:: len(choices) // 5]:
        words = tuple(space.operations[o] for o in row)
        architecture = space.architecture((words,))
        assert space.parse(space.format(architecture)) == architecture
        plain = plain_network(ChildNetwork(sized(space), architecture, prune=True))
        assert models["params"].predict(architecture) == sum(p.numel() for p in plain.parameters())
        assert models["macs"].predict(architecture) == macs(plain, 3, 16, 16)


@pytest.mark.slow
def test_numbers_of_channels_are_choices(declare: Declare) -> None:
    """Costs of all members are exact: a layer reads the choices before and after it, up to a fixed number."""
    space = get_space(declare(text=WIDE))
    (cell,) = space.cells.values()
    names = [edge.name for edge in space.layout.edges] if isinstance(space, BackboneSpace) else []
    assert names[3:8] == ["the width of wide_0", "wide_0", "wide_1", "the width of wider", "wider"]
    assert [cell.reads[e] for e in range(3, 12)] == [(), (3,), (3,), (), (3, 6), (6,), (6,), (), ()]
    models = build_cost_models(make_table(sized(space)), sized(space))
    every = list(space.parse("kernel3_hidden8 skip skip w6 kernel1 skip w16 skip pool_max skip").cells[0])
    for width, wide_1, wider, same in product(("w6", "w10"), ("kernel3", SKIP), ("w12", "w16"), ("keep", SKIP)):
        every[3], every[5], every[6], every[8] = width, wide_1, wider, same
        architecture = space.architecture((tuple(every),))
        assert space.parse(space.format(architecture)) == architecture
        plain = plain_network(ChildNetwork(sized(space), architecture, prune=True))
        assert models["params"].predict(architecture) == sum(p.numel() for p in plain.parameters())
        assert models["macs"].predict(architecture) == macs(plain, 3, 16, 16)
        assert plain.get_submodule("wider.0").weight.shape[:2] == (int(wider[1:]), int(width[1:]))  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [16, 15])
def test_other_images_and_classes_and_onnx(size: int, declare: Declare, tmp_path: Path) -> None:
    """The functions of the stem and the head get other channels and classes."""
    other = sized(get_space(declare())).resized(image_channels=1, height=size, width=size, classes=3)
    child = ChildNetwork(other, other.space.parse(CHOSEN), prune=True).eval()
    images = torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(0))
    export_network(child, tmp_path / "network.onnx", {})
    with torch.no_grad():
        expected = plain_network(child)(images)
        assert expected.shape == (4, 3)
        assert torch.equal(child(images), expected)
    actual = torch.from_numpy(open_session(tmp_path / "network.onnx")(images.numpy()))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_supernet_has_no_factors_and_its_children_the_same_function(declare: Declare) -> None:
    """Include batch norms that start at another scale, as those of residual blocks that begin as an identity."""
    zero = ("self.narrow =", "nn.init.zeros_(self.norm.weight)\n        self.narrow =")
    space = get_space(declare(zero))
    torch.manual_seed(0)
    supernet = Supernet(sized(space)).eval()
    norms = [m for cell in supernet.cells for m in cell.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.weight is None for norm in norms)
    images, chosen = torch.randn(2, 3, 16, 16), space.parse(CHOSEN)
    child = supernet.child(chosen).eval()
    with torch.no_grad():
        torch.testing.assert_close(child(images), supernet(images, only(space, chosen)))


@pytest.mark.slow
def test_traced_layers_are_those_that_operations_declare() -> None:
    """Compare all built-in operations, whose layers were written by hand. Norms stay apart after a concatenation."""
    workloads = {w.op: w for space in SPACES.values() for w in SizedSpace.named(space).network.workloads()}
    assert len(workloads) > 60
    for workload in workloads.values():
        operation = operation_of(workload)
        by_hand = operation.reads != "images" or operation.name == "factorized_reduce"
        if num_inputs(workload) > 1 or operation.module is None or by_hand:
            continue
        shape = workload.in_channels, workload.height, workload.width
        traced = trace_module(build_on_meta(partial(build_operation, workload)), shape)
        trace = LayerTrace([shape])
        traced.append_to(trace)
        assert tuple(trace.layers) == counted_layers(workload), workload
        assert traced.ends_with[-len(operation.ends_with) :] == operation.ends_with, workload


def test_layers_of_equal_depth_share_a_workload_and_a_space_pickles(declare: Declare) -> None:
    space = get_space(declare())
    workloads = [w for w in sized(space).network.workloads() if w.op.startswith("first_")]
    assert len(workloads) == 4
    assert pickle.loads(pickle.dumps(sized(space))) == sized(space)
    weights = 8 * 8 * 9 + 8 * 8
    (smallest,) = (w for w in workloads if w.op.startswith("first_kernel3_hidden8_"))
    moved = 4 * 8 * 64 + 3 * 8 * 64  # two convolutions and the addition, of 8 channels on 8x8 pixels
    assert memory_access_bytes(smallest) == 4 * (moved + weights)


def test_a_changed_file_is_another_space_with_other_workloads(declare: Declare) -> None:
    """Include a file that the declaration's module only imports a class from."""
    before = get_space(declare())
    same = get_space(declare())
    changed = get_space(declare(("silu", "relu")))
    assert before.key == same.key != changed.key
    before_ops, ops = ({w.op for w in sized(space).network.workloads()} for space in (before, changed))
    assert not before_ops & ops
    own, rest = SMALL.split("def stem", 1)
    header = "from functools import partial\nfrom torch import nn\nfrom my_blocks import Residual\n"
    keys = []
    for text in (own, own.replace("silu", "relu")):
        Path("my_blocks.py").write_text(text)
        sys.modules.pop("my_blocks", None)
        keys.append(get_space(declare(text=f"{header}def stem{rest}")).key)
    sys.modules.pop("my_blocks")
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (("padding=kernel // 2", "padding=1"), r"first\(kernel=5.*module fails on an input of 8x8x8: RuntimeError"),
        (("x + self", "x if x.sum() > 0 else x + self"), r"first\(kernel=3.*fails on an input of 8x8x8"),
        (("return Residual(in_channels", "raise OSError('no')\n    Residual(in_channels"), "it fails: OSError: no"),
        (("return Residual(in_channels, kernel, hidden)", "pass"), "returns a NoneType, not a torch module"),
        (('"hidden": [8, 12]', '"width": [8, 12]'), r"first\(kernel=3, width=8.*unexpected keyword argument"),
        (('"hidden": [8, 12]', '"hidden": [8, 8.0]'), "two choices are written kernel3_hidden8"),
        (('"depth": (1, 3)', '"depth": (3, 1)'), "layers.1: depth 3 to 1"),
        (('"depth": (1, 3)', '"depths": (1, 3)'), "layers.1.depths"),
        (('"name": "down"', '"name": "last"'), "layers: last is there twice"),
        (('"options": {"pool": ["max", "avg"]}', '"depth": (0, 1)'), "down: it can be left out, but makes 12x4x4"),
        (('"build": head}', '"build": head, "options": {"classes": [3]}}'), "classes is given by hwnas"),
        (("nn.Flatten(), ", ""), r"head\(in_channels=12, classes=10\): its module fails on an input of 12x4x4"),
        (("in_channels, classes))", "in_channels, 7))"), "head: the last layer returns 7 values an image"),
        (("Sequential(pooling, ", "Sequential(nn.ReLU(inplace=True), pooling, "), "down: pool_max changes its input"),
        (('"build": block},', '"build": block, "widths": [12, 12]},'), "two or more different numbers of channels"),
        (('"build": block},', '"build": block, "widths": [8, 12]},'), "unexpected keyword argument 'out_channels'"),
        (('"name": "small"', '"name": "darts"'), "darts is a built-in space"),
        (('"image": (3, 16, 16)', '"image": (3, 16)'), "image"),
        (("nn.MaxPool2d(2)", "nn.MaxPool2d(3, 2, 0)"), "down: pool_max returns 12x3x3 and pool_avg 12x4x4"),
    ],
)  # fmt: skip
def test_wrong_declarations_are_refused(replaced: tuple[str, str], message: str, declare: Declare) -> None:
    spec = declare(replaced)
    with pytest.raises(HwnasError, match=message) as raised:
        get_space(spec)
    assert raised.value.fix
    assert spec in raised.value.problem


def test_wrong_widths_are_refused(declare: Declare) -> None:
    wrong = ("nn.BatchNorm2d(out_channels), nn.ReLU())", "nn.BatchNorm2d(out_channels), nn.Conv2d(out_channels, 5, 1))")
    with pytest.raises(HwnasError, match="wide_0: it returns 5 channels for out_channels=6"):
        get_space(declare(wrong, text=WIDE))
    open_end = ("nn.Conv2d(in_channels, 12, 1), nn.BatchNorm2d(12)", "nn.BatchNorm2d(in_channels)")
    with pytest.raises(HwnasError, match="last: its number of channels is a choice, and the layer after it is fixed"):
        get_space(declare(open_end, text=WIDE))
    with pytest.raises(HwnasError, match="cannot be left out"):
        get_space(declare(('"depth": (1, 2)', '"depth": (0, 2)'), text=WIDE))


def test_a_module_that_exists_already_is_no_layer(declare: Declare) -> None:
    spec = declare(
        ("def block", "SHARED = Residual(8, 3, 8)\n\ndef block"),
        ("return Residual(in_channels, kernel, hidden)", "return SHARED"),
    )
    with pytest.raises(HwnasError, match="two calls return the same weights"):
        get_space(spec)
    copied = ("return Residual(in_channels, kernel, hidden)", "import copy\n    return copy.deepcopy(SHARED)")
    with pytest.raises(
        HwnasError, match=r"middle.*fails on an input of 12x4x4"
    ):  # the weights stay those of 8 channels
        get_space(declare(("def block", "SHARED = Residual(8, 3, 8)\n\ndef block"), copied))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return nn.Sequential(*list(layers.values())[:-2], layers['head'])", "fails|something else"),
        ("return nn.Sequential(*layers.values(), nn.Linear(10, 10))", r"weights of its own: 8\.weight"),
        ("return nn.Sequential(*layers.values(), nn.ReLU())", "computes something else than its layers"),
        (
            "layers['last']; return nn.Sequential(*layers.values())",
            "fails on the layers stem, first_0, .*KeyError: 'last'",
        ),
        ("return layers", "assemble returns a dict"),
    ],
)
def test_an_assembly_of_other_layers_is_refused(body: str, message: str, declare: Declare) -> None:
    text = f"{SMALL}\ndef assemble(layers):\n    {body}\n\nnet['assemble'] = assemble\n"
    with pytest.raises(HwnasError, match=message):
        require_plain(sized(get_space(declare(text=text))))


def test_an_operator_that_onnx_lacks_is_named(declare: Declare, tmp_path: Path) -> None:
    spec = declare(
        ("nn.functional.silu(", "torch.special.bessel_j0("),
        ("from torch import nn", "import torch\nfrom torch import nn"),
    )
    other = sized(get_space(spec))
    child = ChildNetwork(other, other.space.parse(CHOSEN), prune=True)
    with pytest.raises(HwnasError, match=r"torch cannot write network as ONNX: .*bessel"):
        export_network(child, tmp_path / "network.onnx", {})


def test_unknown_names(declare: Declare) -> None:
    declare()
    with pytest.raises(HwnasError, match="module my_backbone has no nets"):
        get_space("python:my_backbone:nets")
    with pytest.raises(HwnasError, match="is of type function, not a dictionary"):
        get_space("python:my_backbone:head")
    with pytest.raises(HwnasError, match=r"is of type dict.*write python:my_backbone:net"):
        import_space("my_backbone:net", ())
    space = get_space("python:my_backbone:net")
    with pytest.raises(HwnasError, match="write 5 words, for first_0, first_1, first_2, down, last"):
        space.parse("kernel3_hidden8")
    with pytest.raises(HwnasError, match="down does not offer pool_min; use one of pool_max, pool_avg"):
        space.parse(CHOSEN.replace("pool_avg", "pool_min"))
    with pytest.raises(HwnasError, match="leave out --channels"):
        _ = sized(space).resized(channels=16).network
    with pytest.raises(HwnasError, match="part of its channels"):
        Supernet(sized(space), partial=2)


def test_the_example_of_the_documentation(declare: Declare) -> None:
    """torchvision's own class comes out, with its own names of weights."""
    space = get_space(declare(text=EXAMPLE))
    assert isinstance(space, BackboneSpace)
    require_plain(sized(space))
    chosen = space.parse("kernel3_hidden1 kernel3_hidden1 w24 kernel5_hidden1 skip skip kernel3_hidden1 skip")
    plain = plain_network(ChildNetwork(sized(space), chosen, prune=True))
    assert type(plain).__name__ == "ResNet"
    names = {name.partition(".")[0] for name in plain.state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2", "layer3", "fc"}
