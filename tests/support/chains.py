"""Small chains, and published networks as chains with one member."""

from __future__ import annotations

from typing import Any

from hwnas.spaces import SearchSpace, Setting
from hwnas.spaces.chain import ChainLayout, ChainStage, FixedLayer, LayerCandidate
from hwnas.spaces.mobile_chains import chain_space
from hwnas.spaces.space_files import parse_space

SMALL = """
name: small
stem:
  - {op: conv_bn_relu6_3x3, channels: 8, stride: 2}
candidates:
  k3_e1: {kernel: 3, expand: 1}
  k5_e3: {kernel: 5, expand: 3}
  se: {kernel: 3, expand: 2.5, gate: se, activation: hswish}
stages:
  - {channels: 8, layers: 3, activation: relu6, skips: last, least: 1}
  - {channels: 16, layers: 2, stride: 2, activation: relu6, skips: any, candidates: [k3_e1, k5_e3]}
head:
  - {op: conv_bn_relu6_1x1, channels: 24}
  - {op: pool_linear}
settings:
  tiny: {height: 16, width: 16, stem: cifar}
  large: {channels: 16, height: 32, width: 32}
"""
SHARING = SMALL.replace("k3_e1", "k3_e2").replace("3, expand: 1}", "3, expand: 2}")  # both candidates can share a block
WIDTHS = """
name: widths
stem:
  - {op: conv_bn_relu6_3x3, channels: 8, stride: 2}
candidates:
  k3_e1: {kernel: 3, expand: 1}
  k3_e2: {kernel: 3, expand: 2}
  k5_e3: {kernel: 5, expand: 3}
stages:
  - {channels: [8, 12, 16], layers: 2, activation: relu6, skips: any}
  - {channels: 16, layers: 1, stride: 2, gate: se, activation: hswish, candidates: [k3_e2, k5_e3]}
  - {channels: [16, 24], layers: 2, activation: relu6, candidates: [k3_e2, k5_e3], skips: last, least: 1}
head:
  - {op: conv_bn_relu6_1x1, channels: 24}
  - {op: pool_linear}
projection: conv_bn_relu6_1x1
settings:
  tiny: {height: 16, width: 16}
"""  # stages of several widths, a layer between them, and a head that reads one
PLACES = (  # kernel, middle, out, gate, activation, stride of every searched layer of MobileNetV3-Large
    (3, 64, 24, "", "relu", 2), (3, 72, 24, "", "relu", 1),
    (5, 72, 40, "se", "relu", 2), (5, 120, 40, "se", "relu", 1), (5, 120, 40, "se", "relu", 1),
    (3, 240, 80, "", "hswish", 2), (3, 200, 80, "", "hswish", 1), (3, 184, 80, "", "hswish", 1),
    (3, 184, 80, "", "hswish", 1), (3, 480, 112, "se", "hswish", 1), (3, 672, 112, "se", "hswish", 1),
    (5, 672, 160, "se", "hswish", 2), (5, 960, 160, "se", "hswish", 1), (5, 960, 160, "se", "hswish", 1),
)  # fmt: skip


def small_chain(text: str = SMALL) -> SearchSpace:
    return parse_space("small.yaml", text)


def published(stem: tuple[Any, ...], stages: list[tuple[ChainStage, LayerCandidate]], head: tuple[Any, ...]) -> Any:
    """Return a chain in which every stage has one candidate, at ImageNet's sizes."""
    candidates = {f"s{number}": candidate for number, (_, candidate) in enumerate(stages)}
    only = [
        ChainStage(s.channels, s.layers, s.stride, s.activation, s.gate, (f"s{number}",))
        for number, (s, _) in enumerate(stages)
    ]
    fixed = [tuple(FixedLayer(*layer) for layer in layers) for layers in (stem, head)]
    layout = ChainLayout(fixed[0], candidates, tuple(only), fixed[1])
    setting = Setting(stem[0][1], layout.num_layers, height=224, width=224, classes=1000, stem="imagenet")
    return chain_space("published", layout, {"imagenet": setting}, "imagenet", "imagenet")


def mobilenet_v2() -> SearchSpace:
    sizes = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
    stages = [(ChainStage(*size, "relu6"), LayerCandidate(3, 6)) for size in sizes]
    stem = (("conv_bn_relu6_3x3", 32, 2), ("mbconv_3x3_e1_r6", 16))
    return published(stem, stages, (("conv_bn_relu6_1x1", 1280), ("pool_linear",)))


def mobilenet_v3_large() -> SearchSpace:
    stages, channels = [], 16
    for kernel, middle, out, gate, activation, stride in PLACES:
        stages.append((ChainStage(out, 1, stride, activation, gate), LayerCandidate(kernel, middle / channels)))  # type: ignore[arg-type]
        channels = out
    head = (("conv_bn_hswish_1x1", 960), ("global_avg_pool",), ("conv_bias_hswish_1x1", 1280), ("linear",))
    return published((("conv_bn_hswish_3x3", 16, 2), ("mbconv_3x3_e1_res", 16)), stages, head)


def mnasnet_b1() -> SearchSpace:
    sizes = (
        (24, 3, 2, 3, 3),
        (40, 3, 2, 5, 3),
        (80, 3, 2, 5, 6),
        (96, 2, 1, 3, 6),
        (192, 4, 2, 5, 6),
        (320, 1, 1, 3, 6),
    )
    stages = [(ChainStage(c, n, s), LayerCandidate(kernel, expand)) for c, n, s, kernel, expand in sizes]
    stem = (("conv_bn_relu_3x3", 32, 2), ("mbconv_3x3_e1", 16))
    return published(stem, stages, (("conv_bn_relu_1x1", 1280), ("pool_linear",)))


def mnasnet_a1() -> SearchSpace:
    sizes = (
        (24, 2, 2, 3, 6, ""), (40, 3, 2, 5, 3, "sei"), (80, 4, 2, 3, 6, ""), (112, 2, 1, 3, 6, "sei"),
        (160, 3, 2, 5, 6, "sei"), (320, 1, 1, 3, 6, ""),
    )  # fmt: skip
    stages = [(ChainStage(c, n, s, "relu", g), LayerCandidate(k, e)) for c, n, s, k, e, g in sizes]  # type: ignore[arg-type]
    stem = (("conv_bn_relu_3x3", 32, 2), ("mbconv_3x3_e1", 16))
    return published(stem, stages, (("conv_bn_relu_1x1", 1280), ("pool_linear",)))
