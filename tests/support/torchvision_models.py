"""torchvision's models and their blocks, imported with any build of torch."""

from __future__ import annotations

from hwnas.compute.torchvision_cpu import torchvision_datasets

torchvision_datasets()  # declares what a CPU build of torch lacks

from torchvision.models import mnasnet1_0, mobilenet_v2, mobilenet_v3_large  # noqa: E402
from torchvision.models._utils import _make_divisible as make_divisible  # noqa: E402
from torchvision.models.mobilenetv2 import InvertedResidual as MobileNetV2Block  # noqa: E402
from torchvision.models.mobilenetv3 import InvertedResidual as MobileNetV3Block  # noqa: E402
from torchvision.models.mobilenetv3 import InvertedResidualConfig  # noqa: E402
from torchvision.ops.misc import Conv2dNormActivation  # noqa: E402

__all__ = [
    "Conv2dNormActivation",
    "InvertedResidualConfig",
    "MobileNetV2Block",
    "MobileNetV3Block",
    "make_divisible",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
]
