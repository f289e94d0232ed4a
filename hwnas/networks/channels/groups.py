"""Groups of channels that are removed together, and what a network of any widths costs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hwnas.networks.channels.recording import Ids, Trace

Floats = NDArray[np.float64]
FIXED = -1  # in place of the number of a channel that cannot be removed


@dataclass(frozen=True)
class Axis:
    """The channels that a layer reads or makes, as numbers of removable channels; FIXED where one is not."""

    channels: Ids

    def kept(self, keep: NDArray[np.bool_]) -> Ids:
        """Return the positions that are left, where ``keep`` [removable channels] says which are."""
        return np.flatnonzero(np.append(keep, True)[self.channels])  # FIXED is the last


@dataclass(frozen=True)
class LayerChannels:
    """The channels of a layer. ``reads`` is None for a batch norm and a depthwise convolution."""

    reads: Axis | None
    makes: Axis


@dataclass(frozen=True)
class _Term:
    """An amount that is proportional to the channels of up to two axes: ``factor`` times their product."""

    factor: float
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Costs:
    """MACs or parameters as a function of the widths w [groups]: sum of factor * (a @ w + b) * (c @ w + d)."""

    factor: Floats
    left: Floats
    left_fixed: Floats
    right: Floats
    right_fixed: Floats

    def with_total(self, total: int, widths: Ids) -> Costs:
        """Return the costs plus a constant, that of layers whose channels all stay: ``widths`` cost ``total``."""
        rows = np.zeros((1, len(widths)))
        return Costs(
            np.append(self.factor, total - self.of(widths)),
            np.append(self.left, rows, axis=0),
            np.append(self.left_fixed, 1.0),
            np.append(self.right, rows, axis=0),
            np.append(self.right_fixed, 1.0),
        )

    def of(self, widths: Ids | Floats) -> int:
        """Return the cost at whole widths."""
        left, right = self.left @ widths + self.left_fixed, self.right @ widths + self.right_fixed
        return round(float(self.factor @ (left * right)))

    def of_one_more(self, widths: Ids | Floats) -> Floats:
        """Return what one channel more of each group costs [groups]: the derivative at some widths."""
        left, right = self.left @ widths + self.left_fixed, self.right @ widths + self.right_fixed
        return np.asarray((self.factor * right) @ self.left + (self.factor * left) @ self.right)


class Channels:
    """The removable channels of a network.

    Channels are numbered; those of a group follow each other. A group's channels occur in the same layers equally
    often, so the network's shape depends only on how many of each group are left. ``sizes`` [groups] are the numbers of
    channels, ``masked`` the layers whose outputs are to be masked (hwnas.networks.channels.recording.Trace).
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._numbers, self.sizes = _numbered(trace)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self.layers = {
            layer.name: LayerChannels(self._axis(layer.reads) if len(layer.reads) else None, self._axis(layer.makes))
            for layer in trace.layers
        }
        self.masked = {name: self._axis(ids) for name, ids in trace.masked.items()}

    @property
    def count(self) -> int:
        """The number of removable channels."""
        return int(self.starts[-1])

    @cached_property
    def group_of(self) -> Ids:
        """The group of every channel [channels]."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def widths(self, keep: NDArray[np.bool_]) -> Ids:
        """Return how many channels of each group are left [groups]."""
        return np.bincount(self.group_of[keep], minlength=len(self.sizes))

    def macs(self, convention: str) -> Costs:
        """Return the MACs of the layers that were traced, in a ``convention`` of hwnas.networks.count."""
        terms: list[_Term] = []
        for traced in self._trace.layers:
            terms += _macs_of(traced.module, self.layers[traced.name], traced.pixels, convention)
        if convention == "fvcore":
            terms += [_Term(pixels, (self._axis(ids),)) for ids, pixels in self._trace.pools]
        return self._costs(terms)

    def _axis(self, ids: Ids) -> Axis:
        numbers = [self._numbers.get(self._trace.root(int(channel)), FIXED) for channel in ids]
        return Axis(np.array(numbers, dtype=np.int64))

    def _costs(self, terms: Iterable[_Term]) -> Costs:
        rows = [(term.factor, *self._counts(term.axes[:1]), *self._counts(term.axes[1:])) for term in terms]
        factor, left, left_fixed, right, right_fixed = zip(*rows, strict=True)
        return Costs(np.array(factor), np.array(left), np.array(left_fixed), np.array(right), np.array(right_fixed))

    def _counts(self, axes: tuple[Axis, ...]) -> tuple[Floats, float]:
        """Return how often an axis has the channels of each group [groups], and its fixed channels; 1 without axis."""
        if not axes:
            return np.zeros(len(self.sizes)), 1.0
        channels = axes[0].channels
        removable = channels[channels != FIXED]
        counts = np.bincount(self.group_of[removable], minlength=len(self.sizes))
        return counts / np.maximum(self.sizes, 1), float(len(channels) - len(removable))


def _numbered(trace: Trace) -> tuple[dict[int, int], Ids]:
    """Return the number of every removable channel by its root, and the sizes of the groups."""
    fixed = {trace.root(channel) for channel in trace.fixed}
    places: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for layer in trace.layers:
        for side, ids in (("reads", layer.reads), ("makes", layer.makes)):
            for channel in ids:
                if (root := trace.root(int(channel))) not in fixed:
                    places[root][layer.name, side] += 1
    groups: dict[frozenset[tuple[tuple[str, str], int]], list[int]] = defaultdict(list)
    for root, counted in places.items():
        groups[frozenset(counted.items())].append(root)
    ordered = [root for group in groups.values() for root in group]
    return {root: number for number, root in enumerate(ordered)}, np.array([len(g) for g in groups.values()], dtype=int)


def _macs_of(module: nn.Module, layer: LayerChannels, pixels: int, convention: str) -> list[_Term]:
    if isinstance(module, nn.BatchNorm2d):
        return [_Term(pixels * (2.0 if module.affine else 1.0), (layer.makes,))] if convention == "fvcore" else []
    weights = [_weights(module, layer, float(pixels))]
    if convention == "conv_linear" and isinstance(module, nn.Linear) and module.bias is not None:
        weights.append(_Term(1.0, (layer.makes,)))
    return weights


def _weights(module: nn.Module, layer: LayerChannels, times: float) -> _Term:
    """Return the number of a layer's weights, ``times`` as many."""
    kernel = module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1
    groups = module.groups if isinstance(module, nn.Conv2d) and layer.reads else 1
    return _Term(times * kernel / groups, (layer.reads, layer.makes) if layer.reads else (layer.makes,))
