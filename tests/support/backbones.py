"""Declarations of backbones (docs/how-to/wrap-a-backbone.md): torchvision's MobileNetV2, and a small network."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from support.paths import ROOT
from support.torchvision_models import Conv2dNormActivation, MobileNetV2Block

PAGE = (ROOT / "docs/how-to/wrap-a-backbone.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r'```python title="my_resnet.py"\n(.*?)```', PAGE, re.DOTALL)
SMALL = """
from functools import partial
from torch import nn

class Residual(nn.Module):
    def __init__(self, channels, kernel, hidden):
        super().__init__()
        self.wide = nn.Conv2d(channels, hidden, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.narrow = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        return x + self.narrow(nn.functional.silu(self.norm(self.wide(x))))

def stem(in_channels, channels=8):
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, 2, 1), nn.ReLU(inplace=True))

def block(in_channels, kernel=3, hidden=8):
    return Residual(in_channels, kernel, hidden)

def down(in_channels, pool="max"):
    pooling = nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)
    return nn.Sequential(pooling, nn.Conv2d(in_channels, 12, 1), nn.BatchNorm2d(12), nn.ReLU())

def head(in_channels, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, classes))

net = {
    "name": "small",
    "image": (3, 16, 16),
    "classes": 10,
    "layers": [
        {"name": "stem", "build": stem},
        {"name": "first", "build": block, "options": {"kernel": [3, 5], "hidden": [8, 12]}, "depth": (1, 3)},
        {"name": "down", "build": down, "options": {"pool": ["max", "avg"]}},
        {"name": "middle", "build": block},
        {"name": "last", "build": partial(block, kernel=1), "options": {"hidden": [4, 24]}, "depth": (0, 1)},
        {"name": "head", "build": head},
    ],
}
"""
WIDE = SMALL.replace(
    """        {"name": "down", "build": down, "options": {"pool": ["max", "avg"]}},
""",
    """        {"name": "wide", "build": wider, "widths": [10, 6], "options": {"kernel": [1, 3]}, "depth": (1, 2)},
        {"name": "wider", "build": partial(wider, stride=2), "widths": [12, 16]},
        {"name": "same", "build": block, "depth": (0, 1)},
        {"name": "down", "build": down, "options": {"pool": ["max", "avg"]}},
""",
).replace(
    "def head",
    """def wider(in_channels, out_channels, kernel=3, stride=1):
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())

def head""",
)  # numbers of channels are choices, too
SIZES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2_layers() -> list[dict[str, Any]]:
    """Return the layers of torchvision's MobileNetV2; those that expand six times may expand three times instead."""
    relu6 = partial(Conv2dNormActivation, norm_layer=nn.BatchNorm2d, activation_layer=nn.ReLU6)
    layers: list[dict[str, Any]] = [{"name": "stem", "build": partial(relu6, 3, 32, stride=2)}]
    widths = [32, *(channels for _, channels, _, _ in SIZES)]
    for (before, _), (expansion, channels, count, stride) in zip(pairwise(widths), SIZES, strict=True):
        for number in range(count):
            into, step = (before, stride) if number == 0 else (channels, 1)
            options = {"expand_ratio": [6, 3]} if expansion > 1 else {"expand_ratio": [1]}
            block = partial(MobileNetV2Block, into, channels, step)
            layers.append({"name": f"block{len(layers)}", "build": block, "options": options})
    layers.append({"name": "last", "build": partial(relu6, 320, 1280, kernel_size=1)})
    return [*layers, {"name": "head", "build": mobilenet_v2_head}]


def mobilenet_v2_head(in_channels: int, classes: int) -> nn.Module:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(pool, nn.Sequential(nn.Dropout(0.2), nn.Linear(in_channels, classes)))


def mobilenet_v2_of(layers: dict[str, nn.Module]) -> nn.Module:
    """Return torchvision's MobileNetV2 with these layers for its own."""
    from support.torchvision_models import mobilenet_v2

    model = mobilenet_v2()
    head = layers.pop("head")
    assert isinstance(head, nn.Sequential)
    model.features, model.classifier = nn.Sequential(*layers.values()), head[1]
    return model


MOBILENET_V2 = {
    "name": "mobilenet_v2",
    "image": (3, 64, 64),
    "classes": 1000,
    "layers": mobilenet_v2_layers(),
    "assemble": mobilenet_v2_of,
}
