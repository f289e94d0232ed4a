"""Count parameters and multiply-accumulates of a module, as fvcore does and as NAS-Bench-201 lists them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from hwnas.networks.child import ChildNetwork, EveryNode
from hwnas.networks.deployed import deployed_inputs
from hwnas.networks.steps import zeros
from hwnas.operations import build_operation
from hwnas.spaces import Workload
from hwnas.spaces.operation import input_shapes


@dataclass(frozen=True)
class Count:
    """Counts of a module.

    ``macs_fvcore`` uses fvcore's default handles and includes batch norm and adaptive pooling. ``macs_conv_linear``
    includes only convolutions and linear layers with their bias (NAS-Bench-201's "FLOPs").
    """

    params: int
    macs_fvcore: int
    macs_conv_linear: int

    def macs(self, convention: str) -> int:
        return {"fvcore": self.macs_fvcore, "conv_linear": self.macs_conv_linear}[convention]


def count(module: nn.Module, *inputs: torch.Tensor) -> Count:
    """Trace ``module`` on ``inputs`` of batch size 1 in evaluation mode and count.

    fvcore calls a multiply-accumulate a flop; these are multiply-accumulates.
    """
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    was_training = module.training
    module.eval()
    with torch.no_grad():
        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
    module.train(was_training)
    biases = sum(m.bias.numel() for m in module.modules() if isinstance(m, nn.Linear) and m.bias is not None)
    return Count(
        params=sum(p.numel() for p in module.parameters()),
        macs_fvcore=int(sum(by_operator.values())),
        macs_conv_linear=int(by_operator["conv"] + by_operator["linear"]) + biases,
    )


def count_workload(workload: Workload) -> Count:
    """Count the operation of a workload."""
    return count(build_operation(workload), *map(zeros, input_shapes(workload)))


def count_network(child: ChildNetwork) -> Count:
    """Count a whole network with every edge that its architecture chooses, edges of unused nodes included."""
    return count(EveryNode(child), *deployed_inputs(child.network.setting))
