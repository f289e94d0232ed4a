"""Torch modules of the parts at a network's ends: stems read the image, heads return class scores."""

from __future__ import annotations

from torch import nn

from hwnas.spaces import Workload


def stem_conv(w: Workload, affine: bool) -> nn.Module:
    conv = nn.Conv2d(w.in_channels, w.out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(w.out_channels))


def stem_imagenet_first(w: Workload, affine: bool) -> nn.Module:
    half = w.out_channels // 2
    return nn.Sequential(
        nn.Conv2d(w.in_channels, half, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, w.out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(w.out_channels),
    )


def stem_imagenet_second(w: Workload, affine: bool) -> nn.Module:
    conv = nn.Conv2d(w.in_channels, w.out_channels, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(w.out_channels))


def pool_linear(w: Workload, affine: bool) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w.in_channels, w.out_channels))


def window_pool_linear(w: Workload, affine: bool) -> nn.Module:
    window = nn.AvgPool2d((w.height, w.width))
    return nn.Sequential(window, nn.Flatten(), nn.Linear(w.in_channels, w.out_channels))


def norm_relu_pool_linear(w: Workload, affine: bool) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(w.in_channels), nn.ReLU(), *pool_linear(w, affine))
