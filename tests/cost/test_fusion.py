"""Rewrites by runtimes: the cost model's counts against ONNX Runtime's optimised graphs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas.cost.fusion import pieces
from hwnas.cost.model import family_sums
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.models import Whole
from hwnas.spaces import Architecture, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode
from hwnas.tables.schema import Entry, LatencyTable
from support.tables import make_table

SPACE = get_space("nasbench201")
SETTING = SPACE.setting("cifar", channels=16, depth=3)


def count_table(family: str) -> LatencyTable:
    """A table in which the workloads of one family take a millisecond each and the others nothing."""
    table = make_table(SizedSpace(SPACE, SETTING))
    relus = [
        Entry(**{**table.entries[0].model_dump(), **asdict(workload)})
        for workload in pieces(SizedSpace(SPACE, SETTING).network)
    ]
    entries = [
        entry.model_copy(update={"latency_ms": float(family in entry.op and "linear" not in entry.op)})
        for entry in (*table.entries, *relus)
    ]
    return table.model_copy(update={"entries": entries})


def optimised(path: Path) -> Counter[str]:
    """Return the number of nodes of each kind that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path.with_suffix(".optimised.onnx")).graph
    kinds = Counter(node.op_type for node in graph.node)
    kinds["fused Add"] = sum(node.op_type == "Conv" and len(node.input) > 3 for node in graph.node)
    return kinds


def random_architectures(number: int) -> list[Architecture]:
    generator = np.random.default_rng(3)
    found: list[Architecture] = []
    while len(found) < number:
        architecture = decode(SPACE, generator.integers(len(SPACE.operations), size=SPACE.num_edges))
        if any(SPACE.cells["cell"].live_edges(architecture.cells[0])):
            found.append(architecture)
    return found


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Architecture, Counter[str]]]:
    folder = tmp_path_factory.mktemp("graphs")
    result = []
    for number, architecture in enumerate(random_architectures(60)):
        path = folder / f"{number}.onnx"
        assemble_onnx(Whole(SizedSpace(SPACE, SETTING), architecture), path, folder / "pieces")
        result.append((architecture, optimised(path)))
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "node", "fixed"),
    # Beside the cells there are two pooled shortcuts, a ReLU in each reduction and one before the head less one that is
    # fused, and an addition in each reduction, done by its convolution.
    [("pool", "AveragePool", 2), ("relu", "Relu", 2), ("sum", "Add", 0), ("sum", "fused Add", 2)],
)
def test_the_model_counts_what_onnx_runtime_runs(
    graphs: list[tuple[Architecture, Counter[str]]], family: str, node: str, fixed: int
) -> None:
    choices = encode(SPACE, [architecture for architecture, _ in graphs])
    sums = family_sums(count_table(family), SizedSpace(SPACE, SETTING), choices, ("share", "fuse"))
    predicted = sums["fused_sum" if node.startswith("fused") else family]
    ran = [kinds[node] - fixed for _, kinds in graphs]
    wrong = [
        (SPACE.format(architecture), p, r)
        for (architecture, _), p, r in zip(graphs, predicted, ran, strict=True)
        if p != pytest.approx(r)
    ]
    # Known exceptions: two nodes that are the same pooling of the same tensor, cells that pass their input on.
    assert len(wrong) <= 0.05 * len(graphs), wrong
    assert len(set(ran)) > 2
