"""Start the supernet of a chain from a file of pretrained weights (hwnas.networks.pretrained).

The layers of the file are at the places of the supernet's layers, as they are for a single network; a stage of several
widths is at that of the first stage of one of them. Of the file's block at a layer every candidate takes its part: the
first channels, and the centre of larger kernels. A candidate with a larger kernel, more channels or other layers than
the block keeps its random weights there. The stem and the head take layers of their own sizes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.layer_names import OWN_NAMING, OWN_UNIT, Block, Layer, blocks_of, naming_of
from hwnas.networks.mixed_cell import CandidateVariants, MixedCell
from hwnas.networks.pretrained import (
    KNOWN,
    Fit,
    block_pairs,
    copied,
    misfit,
    nothing_fits,
    shapes_of,
    unknown_names,
    without_counters,
)
from hwnas.networks.shared_blocks import slices_of
from hwnas.networks.supernet import Supernet
from hwnas.spaces import SearchSpace
from hwnas.spaces.backbone import BackboneSpace

Units = Mapping[str, Mapping[str, nn.Module]]  # the modules of every part or layer, by the candidate's name or ""


def load_into_supernet(supernet: Supernet, weights: Mapping[str, Tensor], source: str) -> Fit:
    """Copy the tensors of ``weights`` that fit into a supernet; the other layers keep their weights.

    ``source`` names the file in errors. Raises HwnasError for a space of cells, where the names are of no known kind,
    and where no layer fits.
    """
    require_chain(supernet.sized.space)
    theirs = without_counters(weights)
    naming, units = naming_of(theirs), _units(supernet)
    if naming is None:
        raise unknown_names(theirs, source, KNOWN)
    fits: dict[str, str] = {}
    unfit: dict[str, str] = {}
    used: set[str] = set()
    loaded = _LoadedParameters(supernet)
    with torch.no_grad():
        for unit, other in _pairs(units, blocks_of(shapes_of(theirs), naming)):
            for candidate, module in units[unit].items():
                mine = _tensors(unit, module)
                for block in blocks_of(shapes_of(mine), OWN_NAMING):
                    for role, layer in block.layers.items():
                        label = layer.name.replace(unit, f"{unit}.{candidate}", 1) if candidate else layer.name
                        found, reason = _layer_at(role, block, other)
                        reason = reason or misfit(layer, found, mine, theirs, larger=bool(candidate))
                        if reason or found is None:
                            unfit[label] = reason
                            continue
                        fits[label] = _described(layer, found, mine, theirs)
                        used |= copied(layer, found, mine, theirs, naming.epsilon)
                        loaded.mark(mine[name] for name in layer.tensors.values())
    if not fits:
        raise nothing_fits(unfit, source)
    return Fit(naming.name, fits, unfit, sorted(set(theirs) - used), loaded.number, loaded.total)


def require_chain(space: SearchSpace) -> None:
    """Raise HwnasError where a search cannot start from pretrained weights: in cells, and in a user's own backbone."""
    if isinstance(space, BackboneSpace):
        raise HwnasError(
            f"a search in the backbone {space.name} does not read weights",
            "let the functions of its layers load them",
        )
    if not space.is_chain:
        raise HwnasError(
            f"a search starts from pretrained weights in a chain of layers, and {space.name} is a space of cells",
            "leave out the weights; 'hwnas train --weights' trains a network of cells from them",
        )


def _units(supernet: Supernet) -> Units:
    """Return the modules of the supernet that have weights, by the name of their part or layer."""
    units: dict[str, dict[str, nn.Module]] = {}
    for index, part in enumerate(supernet.parts):
        if not isinstance(part, MixedCell):
            units[f"parts.{index}"] = {"": part}
            continue
        for e, candidates in enumerate(part.edges):
            assert isinstance(candidates, nn.ModuleDict)
            units[f"parts.{index}.edges.{e}"] = {
                f"{op}.{read}" if read else op: module
                for op, found in candidates.items()
                for read, module in (found.items() if isinstance(found, CandidateVariants) else [("", found)])
            }
    return units


def _pairs(units: Units, theirs: list[Block]) -> Iterator[tuple[str, Block | None]]:
    """Yield every part and layer with the file's block at its place, None where there is none.

    The block of a layer is that of its first candidate around a depthwise convolution, in its widest variant.
    """
    mine: list[Block] = []
    widths: dict[str, tuple[int, ...]] = {}
    for unit, modules in units.items():
        blocks = [block for m in modules.values() for block in blocks_of(shapes_of(_tensors(unit, m)), OWN_NAMING)]
        widths[unit] = tuple(sorted({block.out_channels for block in blocks}))
        mobile = [block for block in blocks if block.is_mobile] or blocks
        mine += [block for block in mobile if block.out_channels == widths[unit][-1]][:1]
    for block, other in block_pairs(mine, theirs, lambda block: widths[_unit_of(block)]):
        yield _unit_of(block), other


def _unit_of(block: Block) -> str:
    found = OWN_UNIT.fullmatch(next(iter(block.layers.values())).name)
    assert found
    return found[1]


def _tensors(unit: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's tensors, slices of shared blocks included, with names that begin with ``unit``."""
    state = without_counters({**module.state_dict(), **slices_of(module)})
    return {f"{unit}.{name}": tensor for name, tensor in state.items()}


def _layer_at(role: str, block: Block, other: Block | None) -> tuple[Layer | None, str]:
    """Return the file's layer in the role of one of ``block``, or the reason why none can be."""
    if other and block.is_mobile and "expand" in other.layers and "expand" not in block.layers:
        return None, f"the file's block begins with {other.layers['expand'].name}, which this candidate has not"
    return (other.layers.get(role) if other else None), ""


def _described(layer: Layer, found: Layer, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """Return the name of the file's layer, and the part of its weight that is taken."""
    own, whole = mine[layer.tensors["weight"]], theirs[found.tensors["weight"]]
    if own.numel() == whole.numel():
        return found.name
    return f"{found.name}, {_written(own)} of {_written(whole)}"


def _written(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


class _LoadedParameters:
    """The number of a supernet's parameters that come from a file, those of slices counted once."""

    def __init__(self, supernet: Supernet) -> None:
        self.marks = {
            parameter.untyped_storage().data_ptr(): torch.zeros(parameter.numel(), dtype=torch.bool)
            for parameter in supernet.parameters()
        }

    def mark(self, tensors: Iterator[Tensor]) -> None:
        """Count these tensors, which are parameters, views of them, or statistics, which do not count."""
        for tensor in tensors:
            marks = self.marks.get(tensor.untyped_storage().data_ptr())
            if marks is not None:
                marks.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(True)

    @property
    def number(self) -> int:
        return sum(int(marks.sum()) for marks in self.marks.values())

    @property
    def total(self) -> int:
        return sum(marks.numel() for marks in self.marks.values())
