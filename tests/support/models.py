"""Small models of all kinds of operations, as they are timed, and their comparison with torch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hwnas.profiling.assemble import Assembled
from hwnas.profiling.models import Repeated, Whole, torch_model
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload

ONLY_SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
MIXED = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
UNREAD = "|avg_pool_3x3~0|+|nor_conv_1x1~0|none~1|+|avg_pool_3x3~0|skip_connect~1|none~2|"
SMALL = Setting(channels=8, depth=1, height=16, width=16)
MODELS: dict[str, Assembled] = {
    "nor_conv_3x3": Repeated(Workload("nor_conv_3x3", 16, 16, 12, 12), 3),
    "sep_conv_3x3": Repeated(Workload("sep_conv_3x3", 16, 16, 12, 12), 3),
    "sep_conv_5x5 of stride 2": Repeated(Workload("sep_conv_5x5", 16, 16, 13, 13, 2), 2),
    "dil_conv_5x5": Repeated(Workload("dil_conv_5x5", 16, 16, 12, 12), 3),
    "avg_pool_3x3": Repeated(Workload("avg_pool_3x3", 16, 16, 12, 12), 3),
    "avg_pool_3x3 of stride 2": Repeated(Workload("avg_pool_3x3", 16, 16, 13, 13, 2), 2),
    "max_pool_3x3": Repeated(Workload("max_pool_3x3", 16, 16, 12, 12), 3),
    "factorized_reduce": Repeated(Workload("factorized_reduce", 16, 32, 12, 12, 2), 2),
    "factorized_reduce of odd sides": Repeated(Workload("factorized_reduce", 16, 32, 13, 13, 2), 2),
    "residual_reduction of odd sides": Repeated(Workload("residual_reduction", 16, 32, 13, 13, 2), 2),
    "sum": Repeated(Workload("sum", 16, 16, 12, 12), 3),
    "concat": Repeated(Workload("concat", 16, 64, 12, 12), 2),
    "norm_relu_pool_linear": Repeated(Workload("norm_relu_pool_linear", 16, 10, 8, 8), 2),
    "nasbench201": Whole(SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(MIXED)),
    "nasbench201 with a node that nothing reads": Whole(
        SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(UNREAD)
    ),
    "nasbench201 of skips": Whole(SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(ONLY_SKIPS)),
    "darts": Whole(SizedSpace(SPACES["darts"], replace(SMALL, depth=3)), SPACES["darts"].parse("DARTS_V2")),
}


def module_and_inputs(model: Assembled, batch: int) -> tuple[nn.Module, list[Tensor]]:
    """Return a module with random batch-norm parameters, which show a wrong zero at a border, and inputs."""
    torch.manual_seed(0)
    module, inputs = torch_model(model, 1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values, std=0.3)
    return module.eval(), [torch.randn(batch, *x.shape[1:]) for x in inputs]


def assert_same(computed: list[Tensor], module: nn.Module, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        expected = module(*inputs)
    expected = [expected] if isinstance(expected, Tensor) else expected
    for ours, theirs in zip(expected, computed, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))
