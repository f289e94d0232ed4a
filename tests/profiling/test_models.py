"""The models that a profile times: repeated operations and whole networks."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.cost.fusion import pieces
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_workload
from hwnas.operations import build_operation, randomise
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.models import Repeated, Whole, is_branchable, is_chainable, repetitions, torch_model
from hwnas.spaces import SPACES, SizedSpace, Workload, get_space
from hwnas.spaces.encoding import decode, random_choices
from support.chains import small_chain
from support.spaces import CELL_SPACES, SMALL, architectures

CHAIN = small_chain()


def assembled(name: str) -> st.SearchStrategy[Whole]:
    """Return a strategy that draws small networks of a space."""
    if name == CHAIN.name:
        sized = SizedSpace.named(CHAIN, "tiny")
        rows = random_choices(CHAIN, 20, np.random.default_rng(0))
        return st.sampled_from([Whole(sized, decode(CHAIN, row)) for row in rows])
    return architectures(name).map(lambda drawn: Whole(SizedSpace(CELL_SPACES[name], SMALL[name]), drawn))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_workload_can_be_repeated(name: str) -> None:
    space = SPACES[name]
    for setting in space.settings.values():
        network = SizedSpace(space, setting).network
        for workload in (*network.workloads(), *pieces(network)):
            few, many = repetitions(workload)
            assert 1 <= few < many
    depth = SMALL[name].depth if name in CELL_SPACES else None
    small = space.setting(space.search_setting, channels=4, depth=depth)
    for workload in SizedSpace(space, small).network.workloads():
        module, inputs = torch_model(Repeated(workload, 2), batch=3)
        result = module.eval()(*inputs)
        shapes = [r.shape for r in (result if isinstance(result, tuple) else (result,))]
        assert len(shapes) == (1 if is_chainable(workload) else 2)
        assert all(shape[:2] == (3, workload.out_channels) for shape in shapes)


def optimised(model: Repeated, folder: Path) -> Counter[str]:
    """Return the numbers of operators in the graph that ONNX Runtime runs for a model."""
    path, options = folder / "model.onnx", onnxruntime.SessionOptions()
    assemble_onnx(model, path, folder / "pieces")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # that the file is for this machine
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize(
    "workload",
    [
        Workload("mbconv_3x3_e3_hs", 16, 32, 8, 8, 2),
        Workload("mbconv_5x5_e4", 16, 32, 8, 8),
        Workload("conv_bn_hswish_1x1", 16, 32, 8, 8),
    ],
    ids=str,
)
def test_copies_that_make_no_chain_run_as_in_a_network(workload: Workload, tmp_path: Path) -> None:
    """Each copy has its convolutions with what they apply, and not its own change of the input's layout."""
    assert (is_branchable(workload), is_chainable(workload)) == (True, False)
    one, four = (optimised(Repeated(workload, copies), tmp_path) for copies in (1, 4))
    added = {op: four[op] - one[op] for op in (one | four) - Counter("ReorderOutput")}
    convolutions = 1 if workload.op.startswith("conv") else 3
    # The one pixel of a branch's output is written in the model's own layout.
    assert {op: count for op, count in added.items() if count} == {
        "Conv": 3 * convolutions,
        "MaxPool": 3,
        **({"ReorderOutput": 3} if "ReorderOutput" in four else {}),
    }


@pytest.mark.parametrize(
    "op", ["nor_conv_3x3", "avg_pool_3x3", "factorized_reduce", "skip_connect", "sum", "stem_conv_3x3"]
)
def test_operations_of_cells_are_timed_as_before(op: str) -> None:
    """Operations that begin with a ReLU would share it between branches."""
    assert not is_branchable(Workload(op, 16, 32, 8, 8, 2))


@pytest.mark.parametrize(
    ("name", "shortened"),
    [("mobilenetv3", {f"mbconv_{k}x{k}_e6_se_hs_res-160-160-4x4-s1" for k in (3, 5, 7)}), ("darts", set())],
)
def test_chains_hold_no_more_weights_than_a_network(name: str, shortened: set[str]) -> None:
    """Only the widest blocks are repeated fewer times."""
    chained = {w for w in SizedSpace.named(get_space(name)).network.workloads() if is_chainable(w)}
    assert {w.key for w in chained if repetitions(w) == (2, 6)} == shortened
    # 12 copies' weights, as torch counts them: batch norms and biases are a small part.
    assert {w.key for w in chained if 12 * count_workload(w).params > 6.1e6} == shortened


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(assembled=st.sampled_from((*sorted(CELL_SPACES), CHAIN.name)).flatmap(assembled), batch=st.sampled_from([1, 3]))
def test_an_assembled_network_computes_the_same_as_torch(pieces: Path, assembled: Whole, batch: int) -> None:
    """All copies of an operation have the same weights in both."""
    sized, architecture, setting = assembled.sized, assembled.architecture, assembled.sized.setting

    def seeded(workload: Workload | None) -> torch.nn.Module:
        torch.manual_seed(0)
        return randomise(build_operation(workload))

    module = ChildNetwork(sized, architecture, prune=True, build=seeded).eval()
    images = torch.randn(batch, setting.image_channels, setting.height, setting.width)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "assembled.onnx"
        assemble_onnx(assembled, path, pieces, batch, own_weights=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        computed = session.run(None, {given.name: images.numpy()})[0]
    with torch.no_grad():
        expected = module(images).numpy()
    assert np.abs(computed - expected).max() <= 1e-4 * np.abs(expected).max()
