"""Names of tensors in files of weights, read as blocks of layers in the order of the network.

``hwnas``                  parts.2.edges.0.layers.3.weight
``torchvision``            features.1.conv.0.0.weight, features.4.block.2.fc1.weight (MobileNetV2, MobileNetV3)
``torchvision's MnasNet``  layers.8.0.layers.3.weight
``timm``                   blocks.1.0.conv_dw.weight (MobileNetV2, MobileNetV3, MnasNet, FBNet)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

Shape = tuple[int, ...]
Key = tuple[object, ...]  # of a module: the block's key, and its place in the block
OWN_UNIT = re.compile(r"(parts\.(\d+)(?:\.(?:edges|preprocess)\.(\d+))?)(?:\.(.*))?")
NORM = ("weight", "bias", "running_mean", "running_var")
EPSILON = 1e-5  # of batch norms, if a naming does not say otherwise


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer with its batch norm: the names of its tensors by what they are.

    What they are: ``weight`` and ``bias``, and of the batch norm ``norm.weight`` and so on.
    """

    name: str
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class Block:
    """The layers of a block by their role: ``layer`` alone, or the layers around a depthwise convolution."""

    layers: Mapping[str, Layer]
    out_channels: int

    @property
    def is_mobile(self) -> bool:
        """True for a block around a depthwise convolution."""
        return "depthwise" in self.layers


@dataclass(frozen=True)
class Naming:
    """A way to name tensors. ``epsilon`` is that of the batch norms, which no file holds."""

    name: str
    key: Callable[[str, Collection[str]], Key | None]
    epsilon: float = EPSILON


def naming_of(names: Collection[str]) -> Naming | None:
    """Return the naming of a file's tensors, or None where it is unknown."""

    def has(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    if has(r"parts\.\d+\."):
        return OWN_NAMING
    if has(r"blocks\.\d+\.\d+\.(conv|bn)") and has(r"conv_stem\."):
        return Naming("timm", _timm)
    if has(r"layers\.\d+\.\d+\.layers\."):
        return Naming("torchvision", _torchvision_mnasnet)
    if has(r"features\.\d+\.block\."):
        return Naming("torchvision", _torchvision, 1e-3)  # its MobileNetV3
    if has(r"features\.\d+\.conv\."):
        return Naming("torchvision", _torchvision)
    return None


def blocks_of(shapes: Mapping[str, Shape], naming: Naming) -> list[Block]:
    """Return the blocks of a network in their order, from the shapes of its tensors by name."""
    modules = {name.rpartition(".")[0] for name in shapes}
    keys = {module: key for module in modules if (key := naming.key(module, modules)) is not None}
    ordered = sorted(keys, key=lambda module: keys[module])
    grouped = (list(block) for _, block in groupby(ordered, key=lambda module: keys[module][0]))
    return [_block(layers, shapes) for block in grouped if (layers := _layers(block, shapes))]


def _layers(modules: Sequence[str], shapes: Mapping[str, Shape]) -> list[Layer]:
    """Return the layers of a block's modules; a batch norm belongs to the layer before it."""
    layers: list[Layer] = []
    for module in modules:
        if f"{module}.running_mean" in shapes:
            norm = {f"norm.{part}": f"{module}.{part}" for part in NORM if f"{module}.{part}" in shapes}
            if layers:
                layers[-1] = Layer(layers[-1].name, {**layers[-1].tensors, **norm})
        elif f"{module}.weight" in shapes:
            parts = {part: f"{module}.{part}" for part in ("weight", "bias") if f"{module}.{part}" in shapes}
            layers.append(Layer(module, parts))
    return layers


def _block(layers: Sequence[Layer], shapes: Mapping[str, Shape]) -> Block:
    weights = [shapes[layer.tensors["weight"]] for layer in layers]
    out_channels = weights[-1][0]
    depthwise = next((n for n, shape in enumerate(weights) if len(shape) == 4 and shape[1] == 1 < shape[2]), None)
    if depthwise is None:
        names = ["layer", *(f"layer{n}" for n in range(1, len(layers)))]
    else:
        gate = ["reduce", "excite"] if len(layers) > depthwise + 3 else []
        names = [*["expand"] * depthwise, "depthwise", *gate, "project"]
    return Block(dict(zip(names, layers, strict=False)), out_channels)


def _own(module: str, modules: Collection[str]) -> Key | None:
    found = OWN_UNIT.fullmatch(module)
    return ((int(found[2]), int(found[3] or 0)), _natural(found[4] or "")) if found else None


def _torchvision(module: str, modules: Collection[str]) -> Key | None:
    found = re.fullmatch(r"(features|classifier)\.(\d+)(?:\.(.*))?", module)
    return ((found[1] == "classifier", int(found[2])), _natural(found[3] or "")) if found else None


def _torchvision_mnasnet(module: str, modules: Collection[str]) -> Key | None:
    if module.startswith("classifier."):
        return (99, 0), ()
    found = re.fullmatch(r"layers\.(\d+)(?:\.(\d+)\.layers\.(\d+))?", module)
    if not found:
        return None
    number = int(found[1])
    if found[2]:
        return (number, int(found[2])), (int(found[3]),)
    # Flat: convolution 0, batch norm 1; a separable convolution from 3 to 7; at the end 14 and 15.
    first = 0 if number < 3 else 3 if number < 8 else 14
    return (first, 0), (number,)


OWN_NAMING = Naming("hwnas", _own)
TIMM_MOBILE = ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3")
TIMM_SEPARABLE = ("conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2")
TIMM_OTHER = {
    "conv_stem": ((0, 0, 0), (0,)),
    "bn1": ((0, 0, 0), (1,)),
    "conv_head": ((2, 0, 0), (0,)),
    "bn2": ((2, 0, 0), (1,)),
    "classifier": ((3, 0, 0), (0,)),
}


def _timm(module: str, modules: Collection[str]) -> Key | None:
    found = re.fullmatch(r"(blocks\.(\d+)\.(\d+))\.(.*)", module)
    if not found:
        return TIMM_OTHER.get(module)
    if f"{found[1]}.conv_pwl" in modules:
        order: tuple[str, ...] = TIMM_MOBILE
    else:
        order = TIMM_SEPARABLE if f"{found[1]}.conv_dw" in modules else ("conv", "bn1")
    return ((1, int(found[2]), int(found[3])), (order.index(found[4]),)) if found[4] in order else None


def _natural(path: str) -> Key:
    """Return a sort key in which numbers are numbers; the first layer of squeeze-and-excitation is ``reduce``."""
    words = path.split(".") if path else []
    return tuple((0, int(word), "") if word.isdigit() else (1, word != "reduce", word) for word in words)
