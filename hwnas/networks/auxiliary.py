"""The auxiliary head: a second classifier, on the cell at two thirds of the depth, used in training only.

It follows the released code of DARTS (Liu et al., ICLR 2019), which SNAS uses too. The ImageNet head pools with stride
2 and lacks the second batch norm, as the published networks were trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import CellInstance

HIDDEN, FEATURES = 128, 768
WINDOW, KERNEL = 5, 2


class AuxiliaryHead(nn.Module):
    """Feature maps [N, C, H, W] of a cell -> class scores [N, classes]. The remaining pixels are averaged."""

    def __init__(self, channels: int, classes: int, imagenet: bool) -> None:
        super().__init__()
        norm = [] if imagenet else [nn.BatchNorm2d(FEATURES)]
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(WINDOW, stride=stride_of(imagenet), count_include_pad=False),
            nn.Conv2d(channels, HIDDEN, 1, bias=False),
            nn.BatchNorm2d(HIDDEN),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, FEATURES, KERNEL, bias=False),
            *norm,
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def stride_of(imagenet: bool) -> int:
    return 2 if imagenet else 3


def auxiliary_head(child: ChildNetwork) -> tuple[AuxiliaryHead, int]:
    """Return a head for ``child``, and the index of the part whose output the head reads.

    Raises HwnasError when the images are too small for one.
    """
    setting = child.network.setting
    cells = [index for index, part in enumerate(child.network.parts) if isinstance(part, CellInstance)]
    index = cells[2 * len(cells) // 3]
    channels, height, width = _output_shape(child, index)
    imagenet = setting.stem == "imagenet"
    min_size = WINDOW + stride_of(imagenet) * (KERNEL - 1)
    if min(height, width) < min_size:
        raise HwnasError(
            f"the auxiliary head needs maps of at least {min_size}x{min_size}, "
            f"the cell at two thirds of the depth makes {height}x{width} of {setting.describe()}",
            "use larger images, or a recipe with auxiliary_weight 0",
        )
    return AuxiliaryHead(channels, setting.classes, imagenet), index


def _output_shape(child: ChildNetwork, index: int) -> tuple[int, int, int]:
    """Return the shape of a part's output, whose channels may have been pruned."""
    setting, was_training = child.network.setting, child.training
    image = torch.zeros(1, setting.image_channels, setting.height, setting.width).to(next(child.parameters()))
    with torch.no_grad():
        _, channels, height, width = child.eval().values(image)[index].shape
    child.train(was_training)
    return channels, height, width
