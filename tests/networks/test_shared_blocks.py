"""Kernels and expansions of a layer as slices of one block: against slices by hand, plain candidates and children."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.fast import accelerate
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.shared_blocks import Sharing, SlicedConvolution, require_shareable, state_of
from hwnas.networks.supernet import Supernet, only
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.encoding import decode, random_choices
from support.chains import small_chain

TEXT = """
name: kernels
stem:
  - {op: conv_bn_relu6_3x3, channels: 8}
candidates:
  k3_e1: {kernel: 3, expand: 1}
  k3_e2: {kernel: 3, expand: 2}
  k5_e4: {kernel: 5, expand: 4}
  k7_e2: {kernel: 7, expand: 2}
stages:
  - {channels: 8, layers: 2, activation: relu6, gate: se, skips: last, least: 1}
  - {channels: 16, layers: 1, stride: 2}
head:
  - {op: pool_linear}
settings:
  tiny: {height: 16, width: 16}
"""


def supernet_of(sharing: Sharing | None = "slices", seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    supernet = Supernet(SizedSpace.named(small_chain(TEXT), "tiny"), sharing=sharing)
    for parameter in supernet.cells[0].shared_blocks.parameters():
        nn.init.normal_(parameter, std=0.3)
    return supernet


def run_layer(supernet: Supernet, op: str, x: Tensor, layer: int = 0) -> Tensor:
    return supernet.cells[0].candidate(layer, op)(x)


def normed(x: Tensor) -> Tensor:
    return functional.batch_norm(x, None, None, training=True)


@pytest.mark.parametrize("sharing", ["slices", "transformed"])
def test_a_candidate_computes_with_slices_of_the_largest_block(sharing: Sharing) -> None:
    supernet, x = supernet_of(sharing), torch.randn(4, 8, 16, 16)
    block = supernet.cells[0].shared_blocks[0]
    expand, depthwise, reduce, excite, project = (conv.weight for conv in block.convolutions)  # type: ignore[union-attr]
    assert [tuple(w.shape) for w in (expand, depthwise, project)] == [(32, 8, 1, 1), (32, 1, 7, 7), (8, 32, 1, 1)]
    reduce_bias, excite_bias = block.convolutions[2].bias, block.convolutions[3].bias  # type: ignore[union-attr]
    for op, middle, squeezed, kernel in (("k3_e2", 16, 8, 3), ("k5_e4", 32, 8, 5), ("k7_e2", 16, 8, 7)):
        kernels = depthwise[:middle]
        for size, margin in ((5, 1), (3, 1)):
            if kernel <= size:
                kernels = kernels[:, :, margin:-margin, margin:-margin]
                if sharing == "transformed":
                    flat = torch.einsum("ij,cj->ci", block.maps[str(size)], kernels.reshape(middle, -1))  # type: ignore[index, union-attr]
                    kernels = flat.reshape(middle, 1, size, size)
        y = functional.relu6(normed(functional.conv2d(x, expand[:middle])))
        y = functional.relu6(normed(functional.conv2d(y, kernels, padding=kernel // 2, groups=middle)))
        gate = functional.relu(functional.conv2d(y.mean((2, 3), keepdim=True), reduce[:squeezed, :middle], reduce_bias))
        y = y * functional.hardsigmoid(functional.conv2d(gate, excite[:middle, :squeezed], excite_bias[:middle]))
        y = normed(functional.conv2d(y, project[:, :middle])) + x
        torch.testing.assert_close(run_layer(supernet, op, x), y, rtol=1e-4, atol=1e-5)


def test_maps_of_kernels_begin_as_the_identity() -> None:
    torch.manual_seed(0)
    plain = Supernet(SizedSpace.named(small_chain(TEXT), "tiny"), sharing="slices")
    torch.manual_seed(0)
    mapped = Supernet(SizedSpace.named(small_chain(TEXT), "tiny"), sharing="transformed")
    x = torch.randn(4, 8, 16, 16)
    for op in ("k3_e2", "k5_e4", "k7_e2"):
        torch.testing.assert_close(run_layer(mapped, op, x), run_layer(plain, op, x))
    sizes = sum(p.numel() for p in mapped.parameters()) - sum(p.numel() for p in plain.parameters())
    assert sizes == 3 * (5**4 + 3**4)  # one 25x25 and one 9x9 map a layer


def test_weights_are_views_of_one_block_a_layer() -> None:
    supernet, space = supernet_of(), small_chain(TEXT)
    for e, edge in enumerate(supernet.cells[0].edges):
        block = supernet.cells[0].shared_blocks[e]
        storages = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
        assert isinstance(edge, nn.ModuleDict)
        for op in ("k3_e2", "k5_e4", "k7_e2"):
            slices = [layer for layer in edge[op].modules() if isinstance(layer, SlicedConvolution)]
            assert len(slices) == (5 if e < 2 else 3)  # with squeeze-and-excitation
            assert all(layer.weight.untyped_storage().data_ptr() in storages for layer in slices)
            assert list(edge[op].parameters()) == []
    # The memory of a layer is that of its largest candidate, and of k3_e1, which has no first convolution to share.
    widest = replace_candidates("k7_e4", "k3_e1")
    counts = {op: convolutions(ChildNetwork(widest, widest.space.parse(" ".join([op] * 3)))) for op in ("a", "b")}
    cell = sum(p.numel() for p in supernet.cells[0].parameters())
    assert cell == counts["a"] + counts["b"]
    assert space.operations == ("none", "k3_e1", "k3_e2", "k5_e4", "k7_e2", "skip_connect")


def replace_candidates(*candidates: str) -> SizedSpace:
    """Return the space with other candidates, called a and b."""
    begin, rest = TEXT.split("candidates:\n")[0], TEXT.split("stages:\n")[1]
    lines = [f"  {name}: {{kernel: {c[1]}, expand: {c[4]}}}\n" for name, c in zip("ab", candidates, strict=True)]
    return SizedSpace.named(small_chain(f"{begin}candidates:\n{''.join(lines)}stages:\n{rest}"), "tiny")


def convolutions(child: ChildNetwork) -> int:
    """Return the number of parameters in a chain's layers, but for those of batch norms."""
    layers = child.parts[1].modules()
    return sum(p.numel() for m in layers if isinstance(m, nn.Conv2d) for p in m.parameters(recurse=False))


def test_gradients_reach_the_slice_and_nothing_else() -> None:
    supernet, x = supernet_of(), torch.randn(4, 8, 16, 16)
    plain = copy.deepcopy(supernet_of(sharing=None).cells[0].candidate(0, "k3_e2"))
    plain.load_state_dict(state_of(supernet.cells[0].candidate(0, "k3_e2")))
    for module in (supernet.cells[0].candidate(0, "k3_e2"), plain):
        module(x).square().sum().backward()
    block = supernet.cells[0].shared_blocks[0]
    shared = [conv.weight.grad for conv in block.convolutions]  # type: ignore[union-attr]
    own = [layer.weight.grad for layer in plain.modules() if isinstance(layer, nn.Conv2d)]
    places = [np.s_[:16], np.s_[:16, :, 2:5, 2:5], np.s_[:8, :16], np.s_[:16], np.s_[:, :16]]
    for gradient, expected, place in zip(shared, own, places, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient[place], expected)
        outside = gradient.clone()
        outside[place] = 0
        assert not outside.any()


@pytest.mark.parametrize("sharing", ["slices", "transformed"])
def test_a_child_has_the_slices_of_its_path(sharing: Sharing) -> None:
    supernet, images = supernet_of(sharing), torch.randn(4, 3, 16, 16)
    space = supernet.sized.space
    forward = accelerate(supernet)
    for text in ("k3_e2 k5_e4 k7_e2", "k7_e2 skip k3_e2", "k5_e4 k3_e1 k3_e1"):
        architecture = space.parse(text)
        supernet.train()
        for _ in range(3):  # statistics of the path
            expected = supernet.run_architecture(images, architecture)
            supernet(images, only(space, architecture))
        torch.testing.assert_close(forward(images, only(space, architecture), {}, None, frozen=False), expected)
        child = supernet.eval().child(architecture).eval()
        with torch.no_grad():
            torch.testing.assert_close(child(images), supernet.run_architecture(images, architecture))


@pytest.mark.parametrize("name", ["mobilenetv3", "proxylessnas", "fbnet"])
def test_children_of_published_spaces_compute_what_the_supernet_computes(name: str) -> None:
    torch.manual_seed(0)
    space = get_space(name)
    sized = SizedSpace.named(space).resized(channels=8, classes=3)
    supernet, images = Supernet(sized, sharing="slices"), torch.randn(2, 3, 32, 32)
    architecture = decode(space, random_choices(space, 1, np.random.default_rng(3))[0])
    supernet.run_architecture(images, architecture)
    child = supernet.eval().child(architecture).eval()
    with torch.no_grad():
        torch.testing.assert_close(child(images), supernet.run_architecture(images, architecture))


def test_a_supernet_copies_and_saves_its_blocks() -> None:
    supernet, other = supernet_of("transformed"), supernet_of("transformed", seed=1)
    images, mixture = torch.randn(4, 3, 16, 16), {"chain": Mixed(torch.full((3, 6), 0.2))}
    names = [name for name in supernet.state_dict() if "shared_blocks" in name]
    assert len(names) == len(set(names)) == 2 * (7 + 2) + (3 + 2)
    other.load_state_dict(supernet.state_dict())
    twin = copy.deepcopy(supernet)
    expected = supernet(images, mixture)
    for copied in (other, twin):
        assert torch.equal(copied(images, mixture), expected)
    with torch.no_grad():
        for parameter in supernet.cells[0].shared_blocks.parameters():
            parameter.zero_()
    assert torch.equal(twin(images, mixture), expected)


def test_a_space_without_kernels_and_expansions_is_refused() -> None:
    with pytest.raises(HwnasError, match=r"shared_blocks .* space nasbench201 has none"):
        require_shareable(SizedSpace.named(get_space("nasbench201")).network, "nasbench201")
    require_shareable(SizedSpace.named(small_chain(TEXT), "tiny").network, "kernels")
