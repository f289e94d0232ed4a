"""Networks of chains: published members against torchvision and timm, random ones against independent counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hwnas.cost.counts import count_metrics
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count, count_network
from hwnas.networks.drop_path import drop_path
from hwnas.networks.fast import accelerate
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.pretrained import load_pretrained, read_weights
from hwnas.networks.supernet import Supernet
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.spaces import SearchSpace, SizedSpace, Workload, get_space
from hwnas.spaces.encoding import decode, random_choices
from hwnas.tables.importers import blocks
from support.chains import mnasnet_a1, mnasnet_b1, mobilenet_v2, mobilenet_v3_large, small_chain
from support.torchvision_models import mnasnet1_0
from support.torchvision_models import mobilenet_v2 as torchvision_v2
from support.torchvision_models import mobilenet_v3_large as torchvision_v3

CHAINS = ("fbnet", "proxylessnas", "mobilenetv3")


def timm_model(name: str) -> nn.Module:
    """Build a network of timm with random weights."""
    import timm

    return timm.create_model(name, pretrained=False)


def with_random_norms(network: nn.Module) -> nn.Module:
    """Draw factors and statistics of batch norms, so that a function depends on all of them, and on epsilon."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
            norm.running_mean = torch.empty_like(norm.weight).uniform_(-0.2, 0.2).detach()
            norm.running_var = torch.empty_like(norm.weight).uniform_(0.5, 1.5).detach()
    return network


def member(space: SearchSpace, text: str | None = None) -> ChildNetwork:
    """Return a published architecture's network, or the only one of a space."""
    chosen = (
        space.parse(text) if text else space.architecture((tuple(o[0] for o in space.cells["chain"].offers or ()),))
    )
    return ChildNetwork(SizedSpace.named(space, "imagenet"), chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "make_theirs", "pooled_by_mean"),
    [
        (lambda: member(mobilenet_v2()), torchvision_v2, 0),
        (lambda: member(mobilenet_v3_large()), torchvision_v3, 0),
        (lambda: member(mnasnet_b1()), mnasnet1_0, 1280 * 7 * 7),
        (lambda: member(mobilenet_v2()), lambda: timm_model("mobilenetv2_100"), None),
        (lambda: member(mobilenet_v3_large()), lambda: timm_model("mobilenetv3_large_100"), None),
        (lambda: member(mnasnet_b1()), lambda: timm_model("mnasnet_100"), None),
        (lambda: member(mnasnet_a1()), lambda: timm_model("semnasnet_100"), None),
        (lambda: member(get_space("fbnet"), "FBNET_C"), lambda: timm_model("fbnetc_100"), None),
    ],
    ids=[
        "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0", "timm_mobilenet_v2", "timm_mobilenet_v3_large",
        "timm_mnasnet_b1", "timm_mnasnet_a1", "timm_fbnet_c",
    ],
)  # fmt: skip
def test_published_networks_are_members(
    make: Callable[[], ChildNetwork],
    make_theirs: Callable[[], nn.Module],
    pooled_by_mean: int | None,
    tmp_path: Path,
) -> None:
    """Counts are equal and, with the library's weights loaded from a file, outputs.

    fvcore does not count a mean over pixels: ``pooled_by_mean``, or None to leave out pooling.
    """
    torch.manual_seed(0)
    theirs, mine = with_random_norms(make_theirs()).eval(), make().eval()
    counts, expected = count_network(mine), count(theirs, torch.zeros(1, 3, 224, 224))
    assert counts.params == expected.params
    if pooled_by_mean is None:
        assert counts.macs_conv_linear == expected.macs_conv_linear
    else:
        assert counts.macs_fvcore == expected.macs_fvcore + pooled_by_mean
    save_file(theirs.state_dict(), tmp_path / "published.safetensors")
    fit = load_pretrained(mine, read_weights(tmp_path / "published.safetensors"), "published.safetensors")
    assert (fit.unfit, fit.unused, fit.params) == ({}, [], expected.params)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(mine.eval()(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)


def block_of(space: str, op: str, w: Workload) -> blocks.Block | None:
    """Return a layer of a built-in chain as the importers of tables describe it."""
    into, out, stride = w.in_channels, w.out_channels, w.stride
    adds, kernel = stride == 1 and into == out, int(op[1]) if op != "skip_connect" else 0
    if op == "skip_connect":
        return blocks.skip(into, out, stride)
    expand, groups = int(op.split("_e")[1][0]), 2 if op.endswith("_g2") else 1
    if space == "fbnet":
        return blocks.inverted_residual(into, out, kernel, stride, expand, adds, groups)
    activation, gated = ("relu6", False) if space == "proxylessnas" else ("hswish", "_se" in w.op)
    named = blocks.mbconv(into, out, kernel, stride, into * expand, activation, adds, gated)  # type: ignore[arg-type]
    assert named.op.replace("_hs", "") == w.op.replace("_hs", "")
    return named


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_counts_of_a_thousand_architectures_are_exact(name: str) -> None:
    space = get_space(name)
    sized = SizedSpace.named(space)
    (instance,) = sized.network.cell_instances("chain")
    choices = random_choices(space, 1000, np.random.default_rng(0))
    models = count_metrics(sized)
    built = [ChildNetwork(sized, decode(space, row), prune=True) for row in choices[:2]]
    counts = [count_network(child) for child in built]
    expected = {"macs": [c.macs_fvcore for c in counts], "params": [c.params for c in counts]}
    for metric, numbers in expected.items():
        predicted = models[metric].predict_many(choices)
        assert predicted[:2].tolist() == numbers
        layers = np.zeros((len(instance.candidates), len(space.operations)))
        for e, candidates in enumerate(instance.candidates):
            for o, op in enumerate(space.operations):
                if w := candidates[op]:
                    block = block_of(name, op, w)
                    assert block
                    layers[e, o] = getattr(blocks.count_layers(block.layers, w.height, w.width), metric)
        sums = layers[np.arange(len(layers)), choices].sum(axis=1)
        assert np.array_equal(predicted - predicted[0], sums - sums[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_exported_networks_compute_what_torch_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sized = SizedSpace.named(get_space(name), channels=8)
    row = random_choices(sized.space, 1, np.random.default_rng(1))[0]
    child = ChildNetwork(sized, decode(sized.space, row), prune=True).eval()
    images = torch.randn(2, 3, 32, 32)
    write_onnx(child, [images[:1]], tmp_path / "network.onnx")
    scores = onnxruntime.InferenceSession(tmp_path / "network.onnx").run(None, {"input0": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(scores), child(images), rtol=1e-3, atol=1e-4)


def test_a_supernet_runs_the_sampled_layers_alone() -> None:
    torch.manual_seed(0)
    space = small_chain()
    sized = SizedSpace.named(space, "tiny")
    supernet, images = Supernet(sized), torch.randn(4, 3, 16, 16)
    architecture = space.parse("k5_e3 se skip k3_e1 skip")
    expected = supernet.run_architecture(images, architecture)
    weights = torch.nn.functional.one_hot(torch.tensor([2, 3, 4, 1, 4]), 5).float().requires_grad_()
    active = [[o] for o in (2, 3, 4, 1, 4)]
    drop = drop_path(0.9, torch.Generator().manual_seed(0), supernet.num_edges, 4)
    forward = accelerate(supernet)
    found = forward(
        images, {"chain": Mixed(weights, active)}, {}, drop, frozen=False
    )  # a dropped layer would leave nothing
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad != 0, weights.detach() != 0)
    unused = supernet.cells[0].candidate(0, "se")
    assert all(p.grad is None for p in unused.parameters())
    child = supernet.eval().child(architecture).eval()
    torch.testing.assert_close(child(images), supernet.run_architecture(images, architecture))
