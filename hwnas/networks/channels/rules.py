"""The channels of the result of every torch operation that a trace can follow, by the operation's name.

A rule takes the recording, a call and its result, and returns the result's value; None where it cannot follow the
channels, which are then fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.networks.channels.recording import Ids, Recording, Value, of_channels


@dataclass(frozen=True)
class Call:
    """A call of a torch operation, with the first tensor that it returned."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


Rule = Callable[[Recording, Call], Value | None]


def keeps_zero(recording: Recording, call: Call) -> Value | None:
    """A function of every number by itself that is 0 for 0."""
    value = recording.value(call.args[0])
    return value and Value(value.ids, zero=value.zero)


def leaves_zero(recording: Recording, call: Call) -> Value | None:
    """A function of every number by itself that is not 0 for 0."""
    value = recording.value(call.args[0])
    return value and Value(value.ids, zero=False)


def clamp(recording: Recording, call: Call) -> Value | None:
    """A number between two limits (ReLU6)."""
    low, high = [*call.args[1:], -1.0, 1.0][:2] if len(call.args) < 3 else call.args[1:3]
    return keeps_zero(recording, call) if low <= 0 <= high else None


def convolution(recording: Recording, call: Call) -> Value | None:
    """A convolution makes new channels, a depthwise one those that it reads."""
    x, weight, bias, transposed, groups = *call.args[:3], call.args[6], call.args[8]
    reads, trace = recording.read(x), recording.trace
    if reads is None or transposed or not isinstance(recording.layer_of(weight), nn.Conv2d):
        return None
    if groups == len(reads) > 1:
        value = recording.layer(weight, reads[:0], np.repeat(reads, len(weight) // groups), call.output)
        if bias is None:  # what is 0 stays 0
            del trace.masked[trace.layers[-1].name]
        return value
    if groups > 1:  # all groups must keep as many: channels at the same position in their groups belong together
        by_group = reads.reshape(groups, -1)
        trace.equate(by_group, by_group[0])
    return recording.layer(weight, reads, np.tile(trace.new(len(weight) // groups), groups), call.output)


def linear(recording: Recording, call: Call) -> Value | None:
    """A linear layer makes new channels."""
    x, weight = call.args[-2:]
    reads = recording.read(x)
    if reads is None or not isinstance(recording.layer_of(weight), nn.Linear):
        return None
    return recording.layer(weight, reads, recording.trace.new(call.output.shape[1]), call.output)


def batch_norm(recording: Recording, call: Call) -> Value | None:
    """A batch norm makes the channels that it reads, masked after it and no longer before."""
    value = recording.value(call.args[0])
    known = next((t for t in call.args[1:5] if isinstance(recording.layer_of(t), nn.BatchNorm2d)), None)
    if value is None or known is None or not value.by_channel or value.ids.shape[0] != 1:
        return None
    for name in value.from_layers:
        recording.trace.masked.pop(name, None)
    ids = value.ids.ravel()
    return recording.layer(known, ids[:0], ids, call.output)


def add(recording: Recording, call: Call) -> Value | None:
    """A sum has a removed channel only where both terms have."""
    return _joined(recording, call, lambda one, other: one.zero and other.zero)


def multiply(recording: Recording, call: Call) -> Value | None:
    """A product is 0 where one factor is (squeeze-and-excitation)."""
    return _joined(recording, call, lambda one, other: one.zero or other.zero)


def _joined(recording: Recording, call: Call, zero: Callable[[Value, Value], bool]) -> Value | None:
    one, other = (recording.value(tensor) for tensor in call.args[:2])
    if one is None or other is None:
        return None
    recording.trace.equate(one.ids, other.ids)
    return Value(max(one.ids, other.ids, key=np.size), zero=zero(one, other))


def concatenate(recording: Recording, call: Call) -> Value | None:
    """A concatenation along the channels has those of all its parts."""
    tensors, dim = call.args[0], call.args[1] if len(call.args) > 1 else 0
    values = [recording.value(tensor) or recording.trace.constant(tensor) for tensor in tensors]
    if dim % call.output.dim() != 1 or not all(value.by_channel for value in values):
        return None
    layers = frozenset[str]().union(*(value.from_layers for value in values))
    whole = all(value.from_layers for value in values)
    ids = np.concatenate([value.ids for value in values], axis=1)
    return Value(ids, layers if whole else frozenset(), all(value.zero for value in values))


def pool(recording: Recording, call: Call) -> Value | None:
    """A pooling keeps the channels."""
    value = recording.value(call.args[0])
    if value is None or call.args[0].dim() != 4 or not value.by_channel:
        return None
    return Value(of_channels(value.ids.ravel(), call.output.dim()).ids, zero=value.zero)


def pool_all(recording: Recording, call: Call) -> Value | None:
    """A mean over all pixels keeps the channels."""
    x, value = call.args[0], pool(recording, call)
    if value is None or call.output.numel() != x.shape[1]:
        return None
    recording.trace.pools.append((value.ids.ravel(), int(np.prod(x.shape[2:]))))
    return value


def crop(recording: Recording, call: Call) -> Value | None:
    """A slice of the pixels, or a whole slice, keeps the channels."""
    value, x = recording.value(call.args[0]), call.args[0]
    dim = call.args[1] if len(call.args) > 1 else 0
    inside = dim % x.dim() >= 2 or call.output.shape == x.shape
    return Value(value.ids, zero=value.zero) if value and value.by_channel and inside else None


def pad(recording: Recording, call: Call) -> Value | None:
    """Zeros around the pixels keep the channels."""
    value, number = recording.value(call.args[0]), call.args[2] if len(call.args) > 2 else 0
    if value is None or number or call.output.shape[:2] != call.args[0].shape[:2]:
        return None
    return Value(value.ids, zero=value.zero)


def restride(recording: Recording, call: Call) -> Value | None:
    """Other strides for the same shape, as torch sets after pooling in channels_last."""
    value, shape = recording.value(call.args[0]), call.output.shape
    same = value is not None and value.by_channel and value.ids.shape[:2] == shape[:2] and value.ids.ndim == len(shape)
    return value if same else None


def constant(recording: Recording, call: Call) -> Value | None:
    """A tensor of the same kind, whose size is given, has channels of its own that stay."""
    return recording.trace.constant(call.output)


def reshape(recording: Recording, call: Call) -> Value | None:
    """Apply the operation to the ids of numbers that it only puts in another shape or order."""
    value, x = recording.value(call.args[0]), call.args[0]
    if value is None:
        return None
    ids = torch.from_numpy(np.broadcast_to(value.ids, x.shape).copy())
    return Value(_compact(call.function(ids, *call.args[1:], **call.kwargs).numpy()), zero=value.zero)


def _compact(ids: Ids) -> Ids:
    """Return ids with side 1 in place of every side after the channels along which they are equal."""
    for side in range(2, ids.ndim):
        first = ids.take([0], axis=side)
        if (ids == first).all():
            ids = first
    return ids


def _named(rules: Sequence[tuple[str, Rule]]) -> dict[str, Rule]:
    return {name: rule for names, rule in rules for name in names.split()}


RULES = _named(
    [
        ("relu hardswish silu gelu elu leaky_relu tanh neg clone detach alias _to_copy", keeps_zero),
        ("sigmoid hardsigmoid", leaves_zero),
        ("hardtanh", clamp),
        ("convolution", convolution),
        ("addmm mm", linear),
        ("native_batch_norm _native_batch_norm_legit_no_training", batch_norm),
        ("add", add),
        ("mul", multiply),
        ("cat", concatenate),
        ("avg_pool2d max_pool2d max_pool2d_with_indices", pool),
        ("mean _adaptive_avg_pool2d", pool_all),
        ("slice", crop),
        ("constant_pad_nd", pad),
        ("new_zeros", constant),
        ("as_strided", restride),
        ("view _unsafe_view reshape transpose permute unsqueeze squeeze expand", reshape),
    ]
)
