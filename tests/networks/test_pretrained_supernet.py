"""Supernets that start from pretrained weights: torchvision's network is a member, candidates have parts of it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.pretrained_supernet import load_into_supernet
from hwnas.networks.shared_blocks import Sharing
from hwnas.networks.supernet import Supernet
from hwnas.spaces import SizedSpace, get_space
from support.chains import WIDTHS, small_chain
from support.torchvision_models import mobilenet_v2

HALF = """
name: half
stem:
  - {op: conv_bn_relu6_3x3, channels: 16, stride: 2}
  - {op: mbconv_3x3_e1_r6, channels: 8}
candidates:
  k3_e6: {kernel: 3, expand: 6}
  k3_e3: {kernel: 3, expand: 3}
  k5_e6: {kernel: 5, expand: 6}
stages:
  - {channels: 16, layers: 5, stride: 2, activation: relu6}
  - {channels: 32, layers: 4, stride: 2, activation: relu6, skips: last}
  - {channels: 48, layers: 3, activation: relu6}
  - {channels: 80, layers: 3, stride: 2, activation: relu6}
  - {channels: 160, layers: 1, activation: relu6}
head:
  - {op: conv_bn_relu6_1x1, channels: 1280}
  - {op: pool_linear}
settings:
  tiny: {height: 32, width: 32}
"""  # MobileNetV2 at half the width, but for the stride of its third block


def varied(module: nn.Module) -> nn.Module:
    """Draw all batch norms' factors and statistics."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


@cache
def published() -> nn.Module:
    torch.manual_seed(0)
    network = mobilenet_v2(num_classes=10, width_mult=0.5)
    for layer in network.features[
        4
    ].modules():  # the first block of the second stage, which the chain joins to the first
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
    return varied(network)


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("sharing", [None, "slices", "transformed"])
def test_the_published_network_is_a_member(sharing: Sharing | None) -> None:
    torch.manual_seed(1)
    space, state = small_chain(HALF), published().state_dict()
    supernet = Supernet(SizedSpace.named(space, "tiny"), sharing=sharing, affine=True).eval()
    before = parameters_of(supernet)
    fit = load_into_supernet(supernet, state, "half.pth")
    images, member = torch.randn(2, 3, 32, 32), space.parse(" ".join(["k3_e6"] * 16))
    with torch.no_grad():
        expected = published()(images)
        child = supernet.child(member).eval()
        if sharing != "transformed":  # where smaller kernels go through maps, exact only as far as the maps are
            torch.testing.assert_close(supernet.run_architecture(images, member), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(child(images), supernet.run_architecture(images, member), rtol=1e-4, atol=1e-4)
    assert (fit.naming, fit.unused) == ("torchvision", [])
    changed = sum(int((before[name] != p).sum()) for name, p in supernet.named_parameters())
    assert fit.params == changed
    assert fit.total == sum(p.numel() for p in supernet.parameters())


def test_candidates_take_the_first_channels_and_the_centre_of_kernels() -> None:
    supernet = Supernet(SizedSpace.named(small_chain(HALF), "tiny"), affine=True)
    state = published().state_dict()
    fit = load_into_supernet(supernet, state, "half.pth")
    state = {name: tensor for name, tensor in state.items() if name.startswith("features.3.")}
    small = supernet.cells[0].candidate(1, "k3_e3").state_dict()
    assert torch.equal(small["layers.0.weight"], state["features.3.conv.0.0.weight"][:48])
    assert torch.equal(small["layers.1.bias"], state["features.3.conv.0.1.bias"][:48])
    assert torch.equal(small["layers.3.weight"], state["features.3.conv.1.0.weight"][:48])
    assert torch.equal(small["layers.6.weight"], state["features.3.conv.2.weight"][:, :48])
    assert fit.fits["parts.2.edges.1.k3_e3.layers.3"] == "features.3.conv.1.0, 48x1x3x3 of 96x1x3x3"
    assert fit.fits["parts.2.edges.1.k5_e6.layers.0"] == "features.3.conv.0.0"
    assert fit.unfit["parts.2.edges.1.k5_e6.layers.3"] == (
        "weight is 96x1x5x5, that of features.3.conv.1.0 96x1x3x3"
    )  # a larger kernel


def test_narrower_layers_take_the_first_channels() -> None:
    torch.manual_seed(0)
    sized = SizedSpace.named(small_chain(WIDTHS), "tiny")
    text = "w12 k5_e3 k3_e2 k5_e3 w24 k5_e3 k3_e2"
    source = varied(ChildNetwork(sized, sized.space.parse(text), prune=True))
    supernet = Supernet(sized, affine=True).eval()
    fit = load_into_supernet(supernet, source.state_dict(), "source.safetensors")
    (cell,), images = supernet.cells, torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found = supernet.run_architecture(images, sized.space.parse(text))
        torch.testing.assert_close(found, source(images), rtol=1e-4, atol=1e-4)
    narrow = cell.candidate(2, "k3_e2", ("w8",)).state_dict()
    whole = source.state_dict()["parts.1.edges.2.layers.1.running_mean"]
    assert torch.equal(narrow["layers.1.running_mean"], whole[:16])
    assert fit.fits["parts.1.edges.2.k3_e2.w8.layers.0"] == "parts.1.edges.2.layers.0, 16x8x1x1 of 24x12x1x1"
    assert fit.unfit["parts.1.edges.1.k3_e1.w12.layers.0"].startswith("the file's block begins with")


def test_weights_that_cannot_be_used_are_refused() -> None:
    supernet = Supernet(SizedSpace.named(small_chain(HALF), "tiny"), affine=True)
    with pytest.raises(HwnasError, match=r"the names of the tensors in a\.pth are none of those"):
        load_into_supernet(supernet, {"layer1.0.weight": torch.zeros(1)}, "a.pth")
    with pytest.raises(
        HwnasError, match=r"no layer of b.pth fits this network: parts.0.0, for one, weight is 16x3x3x3"
    ):
        load_into_supernet(supernet, {k: v[:1] for k, v in published().state_dict().items() if v.dim()}, "b.pth")
    cells = Supernet(SizedSpace.named(get_space("nasbench201")).resized(channels=4, depth=1))
    with pytest.raises(
        HwnasError, match="starts from pretrained weights in a chain of layers, and nasbench201 is a space"
    ):
        load_into_supernet(cells, {}, "c.pth")
