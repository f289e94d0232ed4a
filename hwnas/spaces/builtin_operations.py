"""hwnas's own operations, registered by name, and the parser of the names in convolutions.py."""

from __future__ import annotations

from collections.abc import Callable

from hwnas.spaces.cell import NONE, SKIP
from hwnas.spaces.convolutions import convolution_operation
from hwnas.spaces.layers import LayerKind, LayerTrace
from hwnas.spaces.mobile_blocks import mobile_operation
from hwnas.spaces.operation import CandidateFamily, Operation, add_operation, add_parser
from hwnas.spaces.space import Workload

FACTORIZED_REDUCE = "factorized_reduce"
RESIDUAL_REDUCTION = "residual_reduction"
PREPROCESS = "nor_conv_1x1"  # gives a cell's input the cell's channels
RELU = "relu"
SUM = "sum"
CONCAT = "concat"
GLOBAL_POOL = "global_avg_pool"
STEM = "stem_conv_3x3"
IMAGENET_STEM = ("stem_imagenet_first", "stem_imagenet_second")

FOLDER = "hwnas.operations"


def _no_layers(t: LayerTrace, w: Workload) -> None:
    pass


def _factorized_reduce(t: LayerTrace, w: Workload) -> None:
    x, half = t.relu(0), w.out_channels // 2
    t.join(t.conv(x, half, 1, 2), t.conv(x, w.out_channels - half, 1, 2))


def _residual_reduction(t: LayerTrace, w: Workload) -> None:
    shortcut = t.conv(t.pool(0, 2), w.out_channels, 1)
    main = t.relu_conv(t.relu_conv(0, w.out_channels, 3, w.stride), w.out_channels, 3)
    t.add(shortcut, main)


def _num_nodes(w: Workload) -> int:
    return w.out_channels // w.in_channels


def _concat(t: LayerTrace, w: Workload) -> None:
    t.layer("concat", tuple(range(_num_nodes(w))), (w.out_channels, w.height, w.width))


def _stem_imagenet_first(t: LayerTrace, w: Workload) -> None:
    t.relu_conv(t.conv(0, w.out_channels // 2, 3, 2), w.out_channels, 3, 2)


def _classify(t: LayerTrace, w: Workload) -> None:
    t.classify(0, w.out_channels)


def _norm_relu_classify(t: LayerTrace, w: Workload) -> None:
    t.classify(t.relu(t.norm(0)), w.out_channels)


def _pooling(name: str, family: CandidateFamily) -> None:
    """Register a pooling, and the same with a batch norm after it, which runs as a layer of its own."""
    normed = f"{name}_bn"
    add_operation(
        Operation(
            name=name,
            module=f"{FOLDER}.pooling:pooling",
            layers=lambda t, w: t.pool(0, w.stride),
            begins_with=name,
            ends_with=("pool",),
            family=family,
            normed=normed,
        )
    )
    add_operation(
        Operation(
            name=normed,
            module=f"{FOLDER}.pooling:normed_pooling",
            layers=lambda t, w: t.norm(t.pool(0, w.stride)),
            begins_with=name,
            ends_with=("pool", "norm"),
            family=family,
            candidate=False,
        )
    )


def _fixed(
    name: str,
    module: str,
    layers: Callable[[LayerTrace, Workload], object],
    *ends: LayerKind,
    begins: str | None = None,
    chainable: bool = True,
) -> None:
    """Register an operation that is not searched: a stem, a reduction or a head."""
    add_operation(
        Operation(
            name=name,
            module=f"{FOLDER}.{module}",
            layers=layers,
            begins_with=begins,
            ends_with=ends,
            chainable=chainable,
            candidate=False,
        )
    )


add_operation(Operation(name=NONE, module=None, layers=_no_layers))
add_operation(Operation(name=SKIP, module=None, layers=_no_layers, strided=FACTORIZED_REDUCE))
add_operation(
    Operation(
        name=FACTORIZED_REDUCE,
        module=f"{FOLDER}.reductions:FactorizedReduce",
        layers=_factorized_reduce,
        begins_with=RELU,
        ends_with=("join", "norm"),
        family="skip",
        candidate=False,
    )
)
add_operation(
    Operation(
        name=RELU,
        module=f"{FOLDER}.joins:relu",
        layers=lambda t, w: t.relu(0),
        begins_with=RELU,
        ends_with=("relu",),
        elementwise=True,
        candidate=False,
    )
)
_pooling("max_pool_3x3", "max_pool")
_pooling("avg_pool_3x3", "pool")
_pooling("max_pool_5x5", "max_pool")
_pooling("max_pool_7x7", "max_pool")
add_operation(
    Operation(
        name=SUM,
        module=f"{FOLDER}.joins:sum_of_two",
        layers=lambda t, w: t.add(0, 1),
        ends_with=("add",),
        num_inputs=2,
        elementwise=True,
        candidate=False,
    )
)
add_operation(
    Operation(
        name=CONCAT,
        module=f"{FOLDER}.joins:concat",
        layers=_concat,
        ends_with=("concat",),
        num_inputs=_num_nodes,
        candidate=False,
    )
)
_fixed(STEM, "stems_heads:stem_conv", lambda t, w: t.conv(0, w.out_channels, 3), "conv")
_fixed(IMAGENET_STEM[0], "stems_heads:stem_imagenet_first", _stem_imagenet_first, "conv")
_fixed(
    IMAGENET_STEM[1],
    "stems_heads:stem_imagenet_second",
    lambda t, w: t.relu_conv(0, w.out_channels, 3, 2),
    "conv",
    begins=RELU,
)
_fixed(RESIDUAL_REDUCTION, "reductions:ResidualReduction", _residual_reduction, "conv", "add")
for head, head_layers in (
    ("pool_linear", _classify),
    ("window_pool_linear", _classify),
    ("norm_relu_pool_linear", _norm_relu_classify),
):
    _fixed(head, f"stems_heads:{head}", head_layers, "linear", chainable=False)
_fixed(
    GLOBAL_POOL,
    "mobile_blocks:global_avg_pool",
    lambda t, w: t.layer("pool", (0,), (w.in_channels, 1, 1)),
    "pool",
    chainable=False,
)
_fixed(
    "linear",
    "mobile_blocks:linear",
    lambda t, w: t.layer("linear", (0,), (w.out_channels, 1, 1), w.in_channels * w.out_channels),
    "linear",
    chainable=False,
)
add_parser(convolution_operation)
add_parser(mobile_operation)
