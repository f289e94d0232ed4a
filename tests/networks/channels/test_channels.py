"""A narrower network computes what the masked one computes, and costs what fvcore counts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.channels.fold import fold
from hwnas.networks.channels.groups import Channels
from hwnas.networks.channels.masks import ChannelMasks
from hwnas.networks.channels.narrow import layer_widths, narrow, set_layer_widths
from hwnas.networks.channels.selection import least_channels, removals, select_channels
from hwnas.networks.channels.trace import trace
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count
from hwnas.spaces import Setting, SizedSpace, Workload, get_space
from support.chains import SMALL as CHAIN
from support.chains import small_chain
from support.spaces import DARTS, NB201, SMALL, architectures
from support.training import tiny_child

SHUFFLED = """
name: shuffled
stem:
  - {op: conv_bn_relu_3x3, channels: 8, stride: 2}
candidates:
  g2: {kernel: 3, expand: 2, groups: 2}
  se: {kernel: 3, expand: 2, gate: se, activation: hswish}
stages:
  - {channels: 8, layers: 2, activation: relu, candidates: [g2]}
  - {channels: 16, layers: 1, stride: 2, activation: relu, candidates: [se]}
head:
  - {op: conv_bn_relu_1x1, channels: 24}
  - {op: pool_linear}
settings:
  tiny: {height: 16, width: 16, stem: cifar}
"""


def nasbench201(written: str) -> ChildNetwork:
    return ChildNetwork(SizedSpace(NB201, SMALL["nasbench201"]), NB201.parse(written), prune=True)


def chain(text: str, last: bool) -> ChildNetwork:
    space = small_chain(text)
    offers = space.cells["chain"].offers or ()
    chosen = tuple(next(o for o in offer[:: -1 if last else 1] if o != "skip_connect") for offer in offers)
    return ChildNetwork(SizedSpace.named(space, "tiny"), space.architecture((chosen,)), prune=True)


def small(text: str | None = None) -> ChildNetwork:
    return chain(text or CHAIN, last=True)


def without_last_nodes() -> ChildNetwork:
    """Return a DARTS network in whose reduction cells two output nodes have no inputs and are constants."""
    sized = SizedSpace(DARTS, Setting(channels=4, depth=3, height=16, width=16))
    normal, reduce = DARTS.parse("SNAS_MODERATE").cells
    torch.manual_seed(0)
    return ChildNetwork(sized, DARTS.architecture((normal, (*reduce[:5], *["none"] * 9))), prune=True)


CELLS = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
MAKE: dict[str, Callable[[], ChildNetwork]] = {
    "nasbench201": lambda: nasbench201(CELLS),
    "darts": lambda: tiny_child(Setting(channels=4, depth=3, height=16, width=16, pool_norm=True), "DARTS_V1"),
    "darts, nodes without inputs": without_last_nodes,
    "chain": small,
    "chain of grouped convolutions": lambda: chain(SHUFFLED, last=False),
}


def prepared(make: Callable[[], ChildNetwork]) -> ChildNetwork:
    torch.manual_seed(0)
    child = make()
    for module in child.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return child.double().eval()


def image(child: ChildNetwork, number: int = 1) -> Tensor:
    s = child.network.setting
    return torch.randn(number, s.image_channels, s.height, s.width, generator=torch.Generator().manual_seed(1)).double()


def assert_folds(child: ChildNetwork, channels: Channels, keep: np.ndarray, all_traced: bool = True) -> ChildNetwork:
    """Compare the narrower network with the masked one, and the predicted counts with fvcore's.

    Where layers were not traced, predictions contain a constant from the count of the whole network.
    """
    whole, sizes = count(child, image(child)), channels.sizes
    masks, narrower, x = ChannelMasks(channels).double(), copy.deepcopy(child), image(child, 2)
    masks.values.data.copy_(torch.from_numpy(keep))
    narrow(narrower, channels, keep)
    masks.attach(child)
    with torch.no_grad():
        expected = child(x)
        masks.detach_all()
        assert torch.allclose(narrower(x), expected, rtol=1e-9, atol=1e-9)
    counted, widths = count(narrower, image(child)), channels.widths(keep)
    for convention in ("fvcore", "conv_linear"):
        costs = channels.macs(convention)
        assert not all_traced or costs.of(sizes) == whole.macs(convention)
        assert costs.with_total(whole.macs(convention), sizes).of(widths) == counted.macs(convention)
    return narrower


@pytest.mark.parametrize("name", MAKE)
def test_a_narrower_network_computes_what_the_masked_one_computes(name: str) -> None:
    child = prepared(MAKE[name])
    channels = Channels(trace(child))
    rank = np.random.default_rng(0).random(channels.count)
    keep = select_channels(rank, channels, costs := channels.macs("fvcore"), costs.of(channels.sizes) / 2)
    assert keep is not None
    narrower = assert_folds(child, channels, keep)
    again = copy.deepcopy(child)
    set_layer_widths(again, layer_widths(narrower), "the file")
    again.load_state_dict(narrower.state_dict())
    assert torch.equal(again(image(child)), narrower(image(child)))


@settings(deadline=None, max_examples=5)
@given(architectures("nasbench201"), st.integers(0, 99))
def test_every_cell_folds_exactly(architecture: object, seed: int) -> None:
    sized = SizedSpace(NB201, SMALL["nasbench201"])
    child = prepared(lambda: ChildNetwork(sized, architecture, prune=True))  # type: ignore[arg-type]
    channels = Channels(trace(child))
    keep = np.random.default_rng(seed).random(channels.count) < 0.6
    assert_folds(child, channels, keep | least_channels(channels))


@pytest.mark.slow
def test_mobilenet_v3_folds_exactly() -> None:
    space = get_space("mobilenetv3")
    chosen = tuple(next(op for op in offer if op != "skip_connect") for offer in space.cells["chain"].offers or ())
    sized = SizedSpace.named(space, "imagenet").resized(height=64, width=64)
    child = prepared(lambda: ChildNetwork(sized, space.architecture((chosen,)), prune=True))
    channels = Channels(trace(child))
    assert max(channels.sizes) == 1280  # of the hidden layer in the head
    assert_folds(child, channels, np.random.default_rng(0).random(channels.count) < 0.5)


def test_channels_are_coupled_where_edges_add() -> None:
    """With identities on a path from the stem to the end, all nodes of a stage share one group."""
    skips = "|skip_connect~0|+|skip_connect~0|nor_conv_3x3~1|+|nor_conv_3x3~0|skip_connect~1|nor_conv_1x1~2|"
    apart = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
    # The residual block after each of two stages has one more convolution.
    assert len(Channels(trace(nasbench201(skips))).sizes) == 3 + 2
    assert len(Channels(trace(nasbench201(apart))).sizes) == 3 * 4 + 2


def test_a_gate_is_masked_with_the_channels_that_it_multiplies() -> None:
    child = chain(SHUFFLED, last=False)
    channels = Channels(trace(child))
    by_name = {name: set(layer.makes.channels.tolist()) for name, layer in channels.layers.items()}
    gated = next(name for name in by_name if name.endswith(".expand")).removesuffix(".expand")
    depthwise = gated.rpartition(".")[0] + ".3"
    assert by_name[depthwise] == by_name[f"{gated}.expand"]
    assert not by_name[depthwise] & by_name[f"{gated}.reduce"]


def test_a_mask_has_the_gradient_of_all_layers_that_share_it() -> None:
    child = prepared(MAKE["nasbench201"])
    channels = Channels(trace(child))
    masks, x = ChannelMasks(channels).double(), image(child, 2)
    masks.values.data[1::3] = 0.0
    masks.attach(child)
    child(x).square().sum().backward()
    gradient = masks.values.grad
    assert gradient is not None
    for channel in (0, channels.count // 3 * 3 - 1):
        sums = []
        for step in (1e-6, -2e-6):
            masks.values.data[channel] += step
            with torch.no_grad():
                sums.append(float(child(x).square().sum()))
        masks.values.data[channel] += 1e-6
        assert gradient[channel] != 0
        assert float(gradient[channel]) == pytest.approx((sums[0] - sums[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("name", ["nasbench201", "chain"])
@pytest.mark.parametrize("multiple", [1, 4])
def test_the_channel_of_least_importance_for_its_cost_leaves_next(name: str, multiple: int) -> None:
    """MACs have degree two in the widths, so half the difference of one channel more and one less is the derivative."""
    channels = Channels(trace(MAKE[name]()))
    costs = channels.macs("conv_linear")
    importance = np.random.default_rng(0).lognormal(size=channels.count)
    keep, groups = np.random.default_rng(1).random(channels.count) < 0.9, np.arange(len(channels.sizes))
    keep |= least_channels(channels, multiple)
    for block in removals(importance, keep.copy(), channels, costs, multiple):
        widths = channels.widths(keep)
        one = np.eye(len(widths), dtype=int)
        rates = np.array([costs.of(widths + one[g]) - costs.of(widths - one[g]) for g in groups]) / 2
        values = {}
        for group in groups[widths > multiple]:
            own = np.flatnonzero(keep & (channels.group_of == group))
            leaving = sorted(own, key=lambda channel: importance[channel])[: widths[group] % multiple or multiple]
            values[group] = importance[leaving].mean() / rates[group], set(leaving)
        assert min(values.values(), key=lambda pair: pair[0])[1] == set(block)
        keep[block] = False
    assert (channels.widths(keep) == np.minimum(channels.widths(keep), multiple)).all()


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_a_selection_keeps_the_limit_and_uses_it(multiple: int) -> None:
    channels = Channels(trace(small()))
    costs, whole = channels.macs("fvcore"), channels.macs("fvcore").of(channels.sizes)
    for seed, share in enumerate((0.3, 0.5, 0.9)):
        rank = np.random.default_rng(seed).random(channels.count)
        keep = select_channels(rank, channels, costs, share * whole, multiple)
        assert keep is not None
        widths = channels.widths(keep)
        assert costs.of(widths) <= share * whole
        assert (widths >= 1).all()
        assert all(w % multiple == 0 or w == size for w, size in zip(widths, channels.sizes, strict=True))
        more = np.eye(len(widths), dtype=int) * multiple
        assert all(
            costs.of(widths + more[g]) > share * whole for g in np.flatnonzero(widths + multiple <= channels.sizes)
        )
    least = costs.of(channels.widths(least_channels(channels, multiple)))
    assert select_channels(rank, channels, costs, least, multiple) is not None
    assert select_channels(rank, channels, costs, least - 1, multiple) is None


class Reversed(nn.Module):
    """An operation that no rule knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


class OneMore(nn.Module):
    """An operation after which removed channels are not 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Tokens(nn.Module):
    """A linear layer and a norm over pixels as tokens, whose channels are last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(channels, channels), nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return self.norm(tokens.transpose(1, 2)).view(x.shape)


@pytest.mark.parametrize("operation", [lambda _: Reversed(), lambda _: OneMore(), Tokens])
def test_channels_that_pass_an_operation_that_cannot_be_followed_stay(operation: Callable[[int], nn.Module]) -> None:
    def build(workload: Workload | None) -> nn.Module:
        from hwnas.operations import build_operation

        if workload and workload.op == "avg_pool_3x3":
            return operation(workload.in_channels)
        return build_operation(workload)

    sized = SizedSpace(NB201, SMALL["nasbench201"])
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|nor_conv_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    child = prepared(lambda: ChildNetwork(sized, NB201.parse(cell), prune=True, build=build))
    channels = Channels(trace(child))
    plain = Channels(trace(nasbench201(cell)))
    assert 0 < channels.count < plain.count
    assert_folds(child, channels, least_channels(channels), all_traced=operation is not Tokens)


def test_a_fold_that_is_not_exact_is_refused() -> None:
    child = prepared(MAKE["nasbench201"])
    channels = Channels(trace(child))
    for layer in child.modules():
        if isinstance(layer, nn.AvgPool2d):
            layer.register_forward_hook(lambda module, inputs, output: output + 1.0)
    with pytest.raises(HwnasError, match="the narrower network and the masked one differ by"):
        fold(child, channels, least_channels(channels), image(child))


def test_widths_of_another_network_are_refused() -> None:
    child, widths = nasbench201(CELLS), layer_widths(nasbench201(CELLS))
    name = next(iter(widths))
    with pytest.raises(HwnasError, match="has the widths of another network"):
        set_layer_widths(child, {**widths, "parts.99": [1, 1]}, "architecture.json")
    with pytest.raises(HwnasError, match=f"layer {name} reads 3 and makes 99 channels"):
        set_layer_widths(child, {**widths, name: [3, 99]}, "architecture.json")
