"""Stages of several widths in the supernet: first channels of the widest, children, gradients, export."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch.nn import functional

from hwnas.errors import HwnasError
from hwnas.export.network import write_onnx
from hwnas.networks.fast import accelerate
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.shared_blocks import Sharing, state_of
from hwnas.networks.supernet import Supernet, only
from hwnas.operations import build_operation
from hwnas.spaces import SizedSpace
from hwnas.spaces.encoding import decode, every_choice
from support.chains import WIDTHS, small_chain

SPACE = small_chain(WIDTHS)
SIZED = SizedSpace.named(SPACE, "tiny")
TEXTS = (
    "w12 k3_e1 skip k5_e3 w24 k3_e2 skip",
    "w8 k3_e1 k3_e2 k3_e2 w16 k5_e3 k3_e2",
    "w16 skip k5_e3 k5_e3 w16 k3_e2 skip",
)


def supernet_of(sharing: Sharing | None, seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(SIZED, sharing=sharing)


@pytest.mark.parametrize("sharing", [None, "slices", "transformed"])
def test_a_child_computes_what_its_path_computes(sharing: Sharing | None) -> None:
    supernet, images = supernet_of(sharing), torch.randn(4, 3, 16, 16)
    forward = accelerate(supernet_of(sharing))
    for text in TEXTS:
        architecture = SPACE.parse(text)
        expected = supernet.train().run_architecture(images, architecture)
        torch.testing.assert_close(forward(images, only(SPACE, architecture), {}, None, frozen=False), expected)
        child = supernet.eval().child(architecture).eval()
        with torch.no_grad():
            torch.testing.assert_close(child(images), supernet.run_architecture(images, architecture))


def test_a_narrower_layer_has_the_first_channels_of_the_widest() -> None:
    (cell,) = supernet_of(None).cells
    widest = state_of(cell.candidate(3, "k5_e3", ("w16",)))
    narrow = state_of(cell.candidate(3, "k5_e3", ("w8",)))
    weights = {name: tensor for name, tensor in narrow.items() if tensor.dim() == 4}
    assert [tuple(t.shape) for t in weights.values()] == [
        (24, 8, 1, 1), (24, 1, 5, 5), (8, 24, 1, 1), (24, 8, 1, 1), (16, 24, 1, 1),
    ]  # fmt: skip
    for name, tensor in weights.items():
        out, into = tensor.shape[:2]
        assert torch.equal(tensor, widest[name][:out, :into])
    one, other = (cell.candidate(1, op, ("w12",)) for op in ("k3_e1", "k3_e2"))
    assert not torch.equal(state_of(one)["layers.0.weight"], state_of(other)["layers.0.weight"][:12])


def test_kernels_expansions_and_widths_share_one_block() -> None:
    (cell,) = supernet_of("slices").cells
    widest = cell.candidate(3, "k5_e3", ("w16",))
    small = cell.candidate(3, "k3_e2", ("w8",))
    x = torch.randn(2, 8, 8, 8)
    state = state_of(widest)
    expand, depthwise, reduce, excite, project = (t for t in state.values() if t.dim() == 4)
    biases = state["layers.6.reduce.bias"], state["layers.6.expand.bias"]
    hswish = functional.hardswish

    def normed(y: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(y, None, None, training=True)

    y = hswish(normed(functional.conv2d(x, expand[:16, :8])))
    y = hswish(normed(functional.conv2d(y, depthwise[:16, :, 1:4, 1:4], None, 2, 1, 1, 16)))
    squeezed = functional.conv2d(y.mean((2, 3), keepdim=True), reduce[:8, :16], biases[0][:8]).relu()
    y = y * functional.hardsigmoid(functional.conv2d(squeezed, excite[:16, :8], biases[1][:16]))
    torch.testing.assert_close(small(x), normed(functional.conv2d(y, project[:, :16])))


def test_parameters_are_those_of_the_widest_layers() -> None:
    (instance,) = SIZED.network.cell_instances("chain")
    widest = [build_operation(w, affine=False) for found in instance.candidates for w in found.values() if w]
    expected = sum(p.numel() for module in widest for p in module.parameters())
    assert sum(p.numel() for p in supernet_of(None).cells[0].parameters()) == expected


def test_the_weight_of_a_width_reaches_the_output_of_its_first_layer() -> None:
    supernet, architecture = supernet_of(None), SPACE.parse(TEXTS[0])
    chosen = [SPACE.operations.index(op) for op in architecture.cells[0]]
    weights = functional.one_hot(torch.tensor(chosen), len(SPACE.operations)).float().requires_grad_()
    images = torch.randn(4, 3, 16, 16)
    scores = supernet(images, {"chain": Mixed(weights, [[o] for o in chosen])})
    torch.testing.assert_close(scores, supernet.run_architecture(images, architecture))
    scores.square().sum().backward()
    assert weights.grad is not None
    found = weights.grad[torch.arange(len(chosen)), chosen]
    torch.testing.assert_close(found[0], found[1])  # w12 and the first layer of the stage scale the same tensor
    torch.testing.assert_close(found[4], found[5])


def test_widths_that_would_be_mixed_are_an_error() -> None:
    weights = torch.full((8, len(SPACE.operations)), 0.5)
    with pytest.raises(HwnasError, match="the widths of a stage cannot be mixed"):
        supernet_of(None)(torch.randn(2, 3, 16, 16), {"chain": Mixed(weights)})


@pytest.mark.slow
def test_exported_networks_compute_what_torch_computes(tmp_path: Path) -> None:
    choices = every_choice(SPACE)
    images = torch.randn(2, 3, 16, 16)
    for row in choices[:: len(choices) // 3]:
        supernet = supernet_of("slices")
        child = supernet.child(decode(SPACE, row)).eval()
        write_onnx(child, [images[:1]], tmp_path / "network.onnx")
        scores = onnxruntime.InferenceSession(tmp_path / "network.onnx").run(None, {"input0": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(scores), child(images), rtol=1e-3, atol=1e-4)
