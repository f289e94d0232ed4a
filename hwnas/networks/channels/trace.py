"""Trace where the channels of a network come from, so that those that belong together are known from its graph.

Every channel that a layer makes gets an id. The network runs once on an image of zeros while each torch operation
hands the ids of what it reads on to what it returns. A sum makes the ids of its terms equal, as a product does; a batch
norm and a depthwise convolution return the ids that they read; a concatenation joins them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.networks.channels.recording import Recording, Trace, of_channels
from hwnas.networks.channels.rules import RULES, Call
from hwnas.networks.child import ChildNetwork


def trace(child: ChildNetwork) -> Trace:
    """Trace the channels of a network in evaluation mode.

    Those of the image and of the scores are fixed, and those that pass an operation without a rule.
    """
    setting, was_training = child.network.setting, child.training
    image = torch.zeros(1, setting.image_channels, setting.height, setting.width).to(next(child.parameters()))
    recording = Recording(child)
    recording.set(image, of_channels(recording.trace.new(setting.image_channels), image.dim()))
    recording.fix(image)
    child.eval()
    with torch.no_grad(), _Recorder(recording):
        scores = child(image)
    recording.fix(scores)
    child.train(was_training)
    return recording.trace


class _Recorder(TorchDispatchMode):
    """Apply the rule of every operation that runs."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name, recording = func.overloadpacket.__name__, self.recording
        outputs, inputs = list(_tensors(result)), list(_tensors(args))
        if name in ("t", "transpose") and recording.is_weight(inputs[0]):
            recording.rename_weight(outputs[0], inputs[0])
        elif any(recording.value(tensor) for tensor in inputs):
            rule = RULES.get(name if name.startswith("_") else name.removesuffix("_"))
            value = rule(recording, Call(func, args, kwargs or {}, outputs[0])) if rule else None
            if value:
                recording.set(outputs[0], value)
            else:
                for tensor in inputs:
                    recording.fix(tensor)
                for tensor in outputs:
                    recording.set(tensor, recording.trace.constant(tensor))
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among values and in lists of them."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
