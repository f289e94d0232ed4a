"""Start a network from a file of pretrained weights: the layers that fit, by their place in the network.

In a chain a layer of the file is at the place of one of the network where both are the k-th layer of the stages of
the same width, with the same role in their block (in a network found by a search, skipped layers count for nothing). A
layer, with its batch norm, fits where all its tensors are in the file with equal shapes; a linear layer may be a 1x1
convolution. Networks of cells take tensors of their own names alone, all of an operation or none.

Batch norms of a file with another epsilon get it added to their variances: the same function in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildCell, ChildNetwork
from hwnas.networks.layer_names import EPSILON, OWN_NAMING, OWN_UNIT, Block, Layer, Naming, Shape, blocks_of, naming_of
from hwnas.networks.plain import with_childs_names
from hwnas.spaces.backbone import BackboneSpace
from hwnas.text import shorten

COUNTER = "num_batches_tracked"  # of a batch norm; no part of its function
KNOWN = "hwnas, torchvision (MobileNetV2, MobileNetV3, MnasNet) and timm (these and FBNet)"


@dataclass(frozen=True)
class Fit:
    """The layers of a file that fit a network, and those that do not.

    ``fits`` has the file's layer for every layer of the network that fits, ``unfit`` the reason for every one that does
    not, ``unused`` the file's other tensors. ``params`` of the network's ``total`` parameters come from the file.
    """

    naming: str
    fits: Mapping[str, str]
    unfit: Mapping[str, str]
    unused: Sequence[str]
    params: int
    total: int


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or of a torch file of tensors alone (no code of a file ever runs).

    A torch file may hold them under ``state_dict`` or ``model``. Raises HwnasError for any other file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise HwnasError(f"there is no file of weights {path}", "give the path of a .safetensors or .pth file")
    fix = "save the weights as safetensors: safetensors.torch.save_file(model.state_dict(), FILE)"
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise HwnasError(f"cannot read weights {path}: {shorten(str(error).splitlines()[0], 120)}", fix) from None
    except Exception:  # torch raises errors of many kinds, which say little, for a file that is not its own
        raise HwnasError(f"{path} is no torch file of tensors alone", fix) from None
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content, dict) and isinstance(content.get(key), dict) else content
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise HwnasError(f"{path} holds no dictionary of tensors", fix)
    return content


def load_pretrained(child: ChildNetwork, weights: Mapping[str, Tensor], source: str) -> Fit:
    """Copy the tensors of ``weights`` that fit into ``child``; the other layers keep their weights.

    ``source`` names the file in errors. Raises HwnasError where the names are of no known kind or no layer fits.
    """
    theirs = without_counters(weights)
    is_backbone = isinstance(child.sized.space, BackboneSpace)
    if is_backbone:
        theirs = with_childs_names(child, theirs)
    is_chain = not is_backbone and all(part.cell.is_chain for part in child.parts if isinstance(part, ChildCell))
    naming = naming_of(theirs)
    if naming is None or not (is_chain or naming == OWN_NAMING):
        raise unknown_names(theirs, source, KNOWN if is_chain else "its plain network" if is_backbone else "hwnas")
    mine = without_counters(child.state_dict())
    pairs = _chain_pairs(mine, theirs, naming) if is_chain else _named_pairs(mine, theirs)
    fits: dict[str, str] = {}
    unfit: dict[str, str] = {}
    used: set[str] = set()
    with torch.no_grad():
        for layer, other in pairs:
            if reason := misfit(layer, other, mine, theirs):
                unfit[layer.name] = reason
                continue
            assert other is not None
            fits[layer.name] = other.name
            used |= copied(layer, other, mine, theirs, naming.epsilon)
    if not fits:
        raise nothing_fits(unfit, source)
    sizes = {name: parameter.numel() for name, parameter in child.named_parameters()}
    params = sum(sizes.get(name, 0) for layer, _ in pairs if layer.name in fits for name in layer.tensors.values())
    return Fit(
        "the plain network" if is_backbone else naming.name,
        fits,
        unfit,
        sorted(set(theirs) - used),
        params,
        sum(sizes.values()),
    )


def without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the counters of batch norms."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}


def unknown_names(theirs: Mapping[str, Tensor], source: str, known: str) -> HwnasError:
    """Return the error for a file whose tensors have none of the ``known`` names."""
    first = shorten(", ".join(sorted(theirs)[:3]), 90)
    return HwnasError(
        f"the names of the tensors in {source} are none of those that fit this network: {first}, …",
        f"give weights with names of {known}",
    )


def nothing_fits(unfit: Mapping[str, str], source: str) -> HwnasError:
    """Return the error for a file of which no layer fits; ``unfit`` has the reasons."""
    layer_name, reason = next(iter(unfit.items()))
    return HwnasError(
        f"no layer of {source} fits this network: {layer_name}, for one, {reason}",
        "give weights of a network with its widths, kernels and expansions",
    )


def _chain_pairs(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], naming: Naming
) -> list[tuple[Layer, Layer | None]]:
    """Return every layer of a chain and the file's layer at its place, None where there is none."""
    pairs = block_pairs(blocks_of(shapes_of(mine), OWN_NAMING), blocks_of(shapes_of(theirs), naming))
    return [
        (layer, other.layers.get(role) if other else None)
        for block, other in pairs
        for role, layer in block.layers.items()
    ]


def _own_width(block: Block) -> tuple[int, ...]:
    return (block.out_channels,)


def block_pairs(
    mine: list[Block], theirs: list[Block], widths: Callable[[Block], tuple[int, ...]] = _own_width
) -> Iterator[tuple[Block, Block | None]]:
    """Pair the blocks of stems in order, those of heads in order with both last ones, and stages of equal width.

    ``widths`` are those that the stage of a block can have.
    """
    stem, stages, head = _sections(mine, widths)
    their_stem, their_stages, their_head = _sections(theirs, _own_width)
    yield from _in_order(stem, their_stem)
    first = 0
    for stage in stages:
        equal = widths(stage[-1])
        places = (n for n in range(first, len(their_stages)) if their_stages[n][-1].out_channels in equal)
        place = next(places, None)
        yield from _in_order(stage, [] if place is None else their_stages[place])
        first = first if place is None else place + 1
    yield from _in_order(head[:-1], their_head[:-1])
    yield from _in_order(head[-1:], their_head[-1:])


def _sections(
    blocks: list[Block], widths: Callable[[Block], tuple[int, ...]]
) -> tuple[list[Block], list[list[Block]], list[Block]]:
    """Return the blocks before the first mobile one, the stages of blocks of equal width, and the blocks after."""
    mobile = [n for n, block in enumerate(blocks) if block.is_mobile] or [len(blocks)]
    body = blocks[mobile[0] : mobile[-1] + 1]
    stages = [list(stage) for _, stage in groupby(body, key=widths)]
    return blocks[: mobile[0]], stages, blocks[mobile[-1] + 1 :]


def _in_order(mine: list[Block], theirs: list[Block]) -> Iterator[tuple[Block, Block | None]]:
    yield from zip_longest(mine, theirs[: len(mine)])


def _named_pairs(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[tuple[Layer, Layer | None]]:
    """Return every operation of a network of cells, and that of the same name with the same tensors in the file."""

    def units(names: Mapping[str, Tensor]) -> dict[str, Layer]:
        grouped: dict[str, dict[str, str]] = {}
        for name in names:
            if found := OWN_UNIT.fullmatch(name):
                grouped.setdefault(found[1], {})[found[4]] = name
        return {unit: Layer(unit, tensors) for unit, tensors in grouped.items()}

    others = units(theirs)
    return [(unit, others.get(name)) for name, unit in units(mine).items()]


def misfit(
    layer: Layer, other: Layer | None, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], larger: bool = False
) -> str:
    """Return the reason why a layer of the file does not fit, or nothing; ``larger``: a part of a larger one fits."""
    if other is None:
        return "the file has no such layer"
    for part, name in layer.tensors.items():
        if part not in other.tensors:
            return f"{other.name} has no {part}"
        shape, found = tuple(mine[name].shape), tuple(theirs[other.tensors[part]].shape)
        if not _is_same(shape, found) and not (larger and part_of(theirs[other.tensors[part]], shape) is not None):
            return f"{part} is {_written(shape)}, that of {other.name} {_written(found)}"
    return ""


def _is_same(shape: Shape, other: Shape) -> bool:
    """Return whether shapes are equal, but for the pixels of a 1x1 convolution."""
    flat = [s[:2] if len(s) == 4 and s[2:] == (1, 1) else s for s in (shape, other)]
    return flat[0] == flat[1]


def part_of(tensor: Tensor, shape: Shape) -> Tensor | None:
    """Return the first channels, and the centre of the kernels, of a tensor; None where it is smaller than ``shape``.

    A 1x1 convolution may be a linear layer.
    """
    if {tensor.dim(), len(shape)} == {2, 4}:
        tensor = (
            tensor.reshape(*tensor.shape[:2], *(1,) * (len(shape) - 2)) if tensor.shape[2:].numel() == 1 else tensor
        )
    margins = [have - want for have, want in zip(tensor.shape, shape, strict=False)]
    if tensor.dim() != len(shape) or min(margins, default=0) < 0 or any(margin % 2 for margin in margins[2:]):
        return None
    starts = [0 if axis < 2 else margin // 2 for axis, margin in enumerate(margins)]
    return tensor[tuple(slice(start, start + want) for start, want in zip(starts, shape, strict=True))]


def copied(
    layer: Layer, other: Layer, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], epsilon: float
) -> set[str]:
    """Copy a layer's tensors and return their names in the file."""
    for part, name in layer.tensors.items():
        source = part_of(theirs[other.tensors[part]], tuple(mine[name].shape))
        assert source is not None
        source = source.to(mine[name])
        shift = epsilon - EPSILON if part == "norm.running_var" and not math.isclose(epsilon, EPSILON) else 0.0
        mine[name].copy_(source + shift if shift else source)
    return {other.tensors[part] for part in layer.tensors}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _written(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"
