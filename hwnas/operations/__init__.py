"""Torch modules of the operations. All other facts about an operation are in hwnas.spaces.operation.

Structures are the papers': ReLU-Conv-BN order, the separable convolution twice, FactorizedReduce at stride 2
(DARTS, Liu et al. 2019), ResNet basic block between the stages (NAS-Bench-201, Dong & Yang 2020).
"""

from hwnas.operations.build import build_operation, randomise
from hwnas.operations.convolutions import DilatedDepthwise, Pointwise, pointwise
from hwnas.operations.reductions import FactorizedReduce, ResidualReduction

__all__ = [
    "DilatedDepthwise",
    "FactorizedReduce",
    "Pointwise",
    "ResidualReduction",
    "build_operation",
    "pointwise",
    "randomise",
]
