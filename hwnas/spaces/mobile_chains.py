"""The built-in chains: the spaces of FBNet, ProxylessNAS and once-for-all's MobileNetV3.

``fbnet``         Wu et al., CVPR 2019: 22 layers of 9 operations; the head has 1984 channels, as FBNet-C's
``proxylessnas``  Cai et al., ICLR 2019: 21 layers of 6 operations, and a skip where the shape stays
``mobilenetv3``   Cai et al., once-for-all, ICLR 2020: 5 stages of 2 to 4 layers of 9 operations

Each is also there at a multiple of its widths, rounded as MobileNet does: ``mobilenetv3-w1.2`` is the other space that
once-for-all publishes. ``mobilenetv3-w0.75-1.0-1.25`` chooses among three widths for each stage.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from hwnas.spaces.chain import KIND, MAX_WIDTHS, ChainLayout, ChainNotation, ChainStage, FixedLayer, LayerCandidate
from hwnas.spaces.mobile_blocks import divisible
from hwnas.spaces.space import SearchSpace, Setting, SpaceOrigin

FBNET_C = (
    "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k5_e6 k5_e3"
    " k5_e6 k5_e6 k5_e6 k5_e6 k3_e6"
)


def chain_space(
    name: str,
    layout: ChainLayout,
    settings: dict[str, Setting],
    search_setting: str,
    published_setting: str,
    published: dict[str, str] | None = None,
    macs_convention: str = "fvcore",
    origin: SpaceOrigin | None = None,
) -> SearchSpace:
    """Return the space of a chain. ``published`` architectures are counted at ``published_setting``."""
    notation = ChainNotation(name, layout.cell, layout.operations)
    return SearchSpace(
        name=name,
        operations=layout.operations,
        cells={KIND: layout.cell},
        settings=settings,
        search_setting=search_setting,
        published_setting=lambda text: published_setting,
        macs_convention=macs_convention,
        parse_cells=notation.parse,
        format_cells=notation.format,
        build_network=layout.network,
        published=published or {},
        origin=origin,
    )


def _built_in(name: str, layout: ChainLayout, published: dict[str, str] | None = None) -> SearchSpace:
    """Return a built-in chain, for small images and for those of ImageNet."""
    sizes: dict[str, Any] = {"channels": layout.stem[0].channels, "depth": layout.num_layers}
    settings = {
        "cifar": Setting(**sizes),
        "imagenet": Setting(**sizes, height=224, width=224, classes=1000, stem="imagenet"),
    }
    return chain_space(name, layout, settings, "cifar", "imagenet", published)


def _blocks(kernels: tuple[int, ...], expansions: tuple[int, ...]) -> dict[str, LayerCandidate]:
    return {f"k{k}_e{e}": LayerCandidate(kernel=k, expand=e) for k in kernels for e in expansions}


def _fbnet_candidates() -> dict[str, LayerCandidate]:
    forms = (("e1", 1, 1), ("e1_g2", 1, 2), ("e3", 3, 1), ("e6", 6, 1))
    return {
        f"k{kernel}_{form}": LayerCandidate(kernel=kernel, expand=expand, groups=groups, expands_always=True)
        for kernel in (3, 5)
        for form, expand, groups in forms
    }


FBNET_LAYOUT = ChainLayout(
    stem=(FixedLayer("conv_bn_relu_3x3", 16, 2),),
    candidates=_fbnet_candidates(),
    stages=tuple(
        ChainStage(channels, layers, stride, skips="any")
        for channels, layers, stride in (
            (16, 1, 1),
            (24, 4, 2),
            (32, 4, 2),
            (64, 4, 2),
            (112, 4, 1),
            (184, 4, 2),
            (352, 1, 1),
        )
    ),
    head=(FixedLayer("conv_bn_relu_1x1", 1984), FixedLayer("global_avg_pool"), FixedLayer("linear")),
    projection="conv_bn_relu_1x1",
)
FBNET = _built_in("fbnet", FBNET_LAYOUT, {"FBNET_C": FBNET_C})

PROXYLESSNAS_LAYOUT = ChainLayout(
    stem=(FixedLayer("conv_bn_relu6_3x3", 32, 2), FixedLayer("mbconv_3x3_e1_r6", 16)),
    candidates=_blocks((3, 5, 7), (3, 6)),
    stages=tuple(
        ChainStage(channels, layers, stride, "relu6", skips="any")
        for channels, layers, stride in ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
    ),
    head=(FixedLayer("conv_bn_relu6_1x1", 1280), FixedLayer("pool_linear")),
)
PROXYLESSNAS = _built_in("proxylessnas", PROXYLESSNAS_LAYOUT)

MOBILENETV3_LAYOUT = ChainLayout(
    stem=(FixedLayer("conv_bn_hswish_3x3", 16, 2), FixedLayer("mbconv_3x3_e1_res", 16)),
    candidates=_blocks((3, 5, 7), (3, 4, 6)),
    stages=(
        ChainStage(24, 4, 2, "relu", "", None, "last", 2),
        ChainStage(40, 4, 2, "relu", "se", None, "last", 2),
        ChainStage(80, 4, 2, "hswish", "", None, "last", 2),
        ChainStage(112, 4, 1, "hswish", "se", None, "last", 2),
        ChainStage(160, 4, 2, "hswish", "se", None, "last", 2),
    ),
    head=(
        FixedLayer("conv_bn_hswish_1x1", 960),
        FixedLayer("global_avg_pool"),
        FixedLayer("conv_hswish_1x1", 1280),
        FixedLayer("linear"),
    ),
)
MOBILENETV3 = _built_in("mobilenetv3", MOBILENETV3_LAYOUT)

_LAYOUTS = {"fbnet": FBNET_LAYOUT, "proxylessnas": PROXYLESSNAS_LAYOUT, "mobilenetv3": MOBILENETV3_LAYOUT}
_MULTIPLE = r"\d\.(?:\d|\d[1-9])"
_SCALED = re.compile(rf"(.*)-w({_MULTIPLE}(?:-{_MULTIPLE}){{0,{MAX_WIDTHS - 1}}})")


@cache
def scaled_chain(name: str) -> SearchSpace | None:
    """Return a built-in chain at a multiple of its widths, named like ``mobilenetv3-w1.2``, or with several to choose
    from for each stage, ``mobilenetv3-w0.75-1.0-1.25``; None for another name.

    All widths of the publication are multiplied and rounded to a multiple of 8, down by at most a tenth. Of several
    multiples, which are in ascending order, the stem and the head have the middle one.
    """
    found = _SCALED.fullmatch(name)
    if not found or found[1] not in _LAYOUTS:
        return None
    multiples = [float(multiple) for multiple in found[2].split("-")]
    if not multiples[0] or multiples != sorted(set(multiples)):
        return None
    return _built_in(name, _scaled(_LAYOUTS[found[1]], multiples))


def _scaled(layout: ChainLayout, multiples: list[float]) -> ChainLayout:
    middle = multiples[len(multiples) // 2]

    def fixed(layers: tuple[FixedLayer, ...]) -> tuple[FixedLayer, ...]:
        return tuple(replace(x, channels=x.channels and divisible(x.channels * middle)) for x in layers)

    def stage(one: ChainStage) -> ChainStage:
        assert isinstance(one.channels, int)
        widths = tuple(dict.fromkeys(divisible(one.channels * multiple) for multiple in multiples))
        return replace(one, channels=widths if len(widths) > 1 else widths[0])

    return replace(layout, stem=fixed(layout.stem), stages=tuple(map(stage, layout.stages)), head=fixed(layout.head))
