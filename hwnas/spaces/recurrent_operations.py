"""Operations of recurrent networks: candidates of a cell's edges, and the parts around the cell. All read vectors.

An edge updates the state of the node that it leaves through a gate (highway networks, Srivastava et al., 2015), as in
ENAS and DARTS: ``s + sigmoid(gate(s)) * (f(update(s)) - s)``, where f is the candidate's activation.
"""

from __future__ import annotations

from collections.abc import Callable

from hwnas.spaces.layers import LayerTrace
from hwnas.spaces.operation import Operation, add_operation, add_parser
from hwnas.spaces.space import Workload

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
EMBEDDING, STATE, BLEND, DECODER = "word_embedding", "recurrent_state", "blend", "word_decoder"
MEAN = "mean_of_"  # followed by the number of vectors

MODULES = "hwnas.operations.recurrent"


def highway(activation: str) -> str:
    """Return the name of the operation of an edge with an activation."""
    return f"highway_{activation}"


def _vector(w: Workload) -> tuple[int, int, int]:
    return w.out_channels, 1, 1


def _gated(t: LayerTrace, w: Workload, x: int, old: int, activation: str) -> int:
    """Append a gated update of the tensor ``old``, computed from ``x``: old + gate * (new - old)."""
    vector, weights = _vector(w), t.shapes[x][0] * w.out_channels
    gate = t.activation(t.layer("linear", (x,), vector, weights))
    new = t.layer("linear", (x,), vector, weights)
    if activation != "identity":
        new = t.relu(new) if activation == "relu" else t.activation(new)
    return t.add(old, t.layer("other", (gate, t.layer("other", (new, old), vector)), vector))


def _highway(activation: str) -> Callable[[LayerTrace, Workload], object]:
    return lambda t, w: _gated(t, w, 0, 0, activation)


def _state(t: LayerTrace, w: Workload) -> None:
    _gated(t, w, t.join(0, 1), 1, "tanh")


def _blend(t: LayerTrace, w: Workload) -> None:
    step = t.layer("other", (t.layer("other", (1, 0), _vector(w)),), _vector(w))
    t.add(0, step)


def _mean(number: int) -> Callable[[LayerTrace, Workload], object]:
    def layers(t: LayerTrace, w: Workload) -> None:
        total = 0
        for vector in range(1, number):
            total = t.add(total, vector)
        t.layer("other", (total,), _vector(w))

    return layers


def mean_operation(name: str) -> Operation | None:
    """Return the operation ``mean_of_N``, the mean of N > 1 vectors; None for any other name."""
    digits = name.removeprefix(MEAN)
    if digits == name or not digits.isdecimal() or not 1 < int(digits) < 100:
        return None
    return Operation(
        name=name,
        module=f"{MODULES}:mean_of_vectors",
        layers=_mean(int(digits)),
        num_inputs=int(digits),
        elementwise=True,
        candidate=False,
        reads="vectors",
    )


for _name in ACTIVATIONS:
    add_operation(
        Operation(
            name=highway(_name),
            module=f"{MODULES}:Highway",
            layers=_highway(_name),
            reads="vectors",
            candidate=False,  # of spaces of images, where users' own spaces choose
        )
    )
add_operation(
    Operation(
        name=EMBEDDING,
        module=f"{MODULES}:WordEmbedding",
        # One row of the decoder's weights is read.
        layers=lambda t, w: t.layer("other", (0,), _vector(w), w.out_channels),
        chainable=False,
        candidate=False,
        reads="words",
    )
)
add_operation(
    Operation(
        name=STATE,
        module=f"{MODULES}:RecurrentState",
        layers=_state,
        num_inputs=2,
        candidate=False,
        reads="vectors",
    )
)
add_operation(
    Operation(
        name=BLEND,
        module=f"{MODULES}:blend_of_two",
        layers=_blend,
        num_inputs=2,
        elementwise=True,
        candidate=False,
        reads="vectors",
    )
)
add_operation(
    Operation(
        name=DECODER,
        module=f"{MODULES}:word_decoder",
        layers=lambda t, w: t.layer("linear", (0,), _vector(w), w.in_channels * w.out_channels),
        chainable=False,
        candidate=False,
        reads="vectors",
    )
)
add_parser(mean_operation)
