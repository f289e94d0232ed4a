"""Networks: the child keeps the supernet's function, ONNX keeps the child's, counts add up over workloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwnas.cost.model import build_cost_models
from hwnas.export.network import export_cells, export_network, open_session, save_weights
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network, count_workload
from hwnas.networks.drop_path import drop_path
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.supernet import Supernet
from hwnas.operations import DilatedDepthwise, FactorizedReduce, Pointwise
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.runtimes.onnxruntime_web import convert_for_web
from hwnas.spaces import Architecture, Setting, SizedSpace, Workload, get_space
from hwnas.spaces.encoding import decode
from support.command import Run
from support.lazy import Lazy
from support.spaces import ALL_CONV, CELL_SPACES, SMALL, architectures
from support.tables import make_table


def supernet_with_statistics(name: str) -> Supernet:
    """Return a supernet with running statistics of random images."""
    torch.manual_seed(1)
    space = CELL_SPACES[name]
    supernet = Supernet(SizedSpace(space, SMALL[name]))
    uniform = {k: torch.full((len(c.edges), len(space.operations)), 0.3) for k, c in space.cells.items()}
    with torch.no_grad():
        for _ in range(3):
            supernet(torch.randn(8, 3, 16, 16), {kind: Mixed(weights) for kind, weights in uniform.items()})
    return supernet.eval()


SUPERNETS = Lazy(CELL_SPACES, supernet_with_statistics)
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def edges_that_leave_a_node_without_inputs(architecture: Architecture) -> bool:
    """Return whether an architecture has such an edge: its output is a constant, which the pruned child lacks."""
    cells = zip(CELL_SPACES[architecture.space].cells.values(), architecture.cells, strict=True)
    for cell, chosen in cells:
        reached = set(range(cell.num_inputs))
        for e, (source, target) in sorted(enumerate(cell.edges), key=lambda item: item[1][1]):
            if chosen[e] != "none":
                if source not in reached:
                    return True
                reached.add(target)
    return False


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_child_computes_what_the_supernet_computes(architecture: Architecture) -> None:
    assume(not edges_that_leave_a_node_without_inputs(architecture))
    supernet = SUPERNETS[architecture.space]
    space = supernet.sized.space
    one_hot = {
        kind: torch.nn.functional.one_hot(
            torch.tensor([space.operations.index(op) for op in chosen]), len(space.operations)
        ).float()
        for kind, chosen in zip(space.cells, architecture.cells, strict=True)
    }
    with torch.no_grad():
        mixed = supernet(IMAGES, {kind: Mixed(weights) for kind, weights in one_hot.items()})
        alone = supernet.run_architecture(IMAGES, architecture)
        child = supernet.child(architecture).eval()(IMAGES)
    torch.testing.assert_close(alone, mixed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(child, mixed, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_pruning_dead_edges_changes_nothing(architecture: Architecture) -> None:
    assume(not edges_that_leave_a_node_without_inputs(architecture))
    space, sizes = CELL_SPACES[architecture.space], SMALL[architecture.space]
    whole = ChildNetwork(SizedSpace(space, sizes), architecture).eval()
    pruned = ChildNetwork(SizedSpace(space, sizes), architecture, prune=True).eval()
    pruned.load_state_dict({k: v for k, v in whole.state_dict().items() if k in pruned.state_dict()})
    with torch.no_grad():
        torch.testing.assert_close(pruned(IMAGES), whole(IMAGES))


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_costs_of_workloads_add_up_to_fvcores_count_of_the_network(architecture: Architecture) -> None:
    space, sizes = CELL_SPACES[architecture.space], SMALL[architecture.space]
    models = build_cost_models(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))
    counts = count_network(ChildNetwork(SizedSpace(space, sizes), architecture))
    assert models["params"].predict(architecture) == counts.params
    assert models["macs"].predict(architecture) == counts.macs(space.macs_convention)


def test_counts_are_those_of_torchs_default_type() -> None:
    workload = Workload("nor_conv_3x3", 4, 8, 7, 7, 2)
    single = count_workload(workload)
    torch.set_default_dtype(torch.float64)
    try:
        assert count_workload(workload) == single
    finally:
        torch.set_default_dtype(torch.float32)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_a_child_without_dead_edges_has_the_predicted_parameters(architecture: Architecture) -> None:
    space, sizes = CELL_SPACES[architecture.space], SMALL[architecture.space]
    cells = zip(space.cells.values(), architecture.cells, strict=True)
    assume(all(all(op == "none" or live for op, live in zip(c, cell.live_edges(c), strict=True)) for cell, c in cells))
    child = SUPERNETS[architecture.space].child(architecture)
    predicted = build_cost_models(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))["params"].predict(
        architecture
    )
    assert sum(p.numel() for p in child.parameters()) == predicted


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(architecture=st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures), batch=st.integers(1, 5))
def test_onnx_computes_what_torch_computes_at_any_batch(
    architecture: Architecture, batch: int, tmp_path_factory
) -> None:  # type: ignore[no-untyped-def]
    child = SUPERNETS[architecture.space].child(architecture).eval()
    file = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_network(child, file, {"note": "a test"})
    images = torch.randn(batch, 3, 16, 16)
    with torch.no_grad():
        expected = child(images).numpy()
    np.testing.assert_allclose(open_session(file)(images.numpy()), expected, rtol=1e-3, atol=1e-4)
    model = onnx.load(file)
    assert {p.key: p.value for p in model.metadata_props}["hwnas.note"] == "a test"


def test_cells_are_exported_alone(tmp_path: Path) -> None:
    import onnxruntime

    child = SUPERNETS["darts"].child(get_space("darts").parse("DARTS_V2"))
    export_cells(child, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["normal.onnx", "reduce.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "reduce.onnx"), providers=["CPUExecutionProvider"])
    feeds = {i.name: np.ones([2, *i.shape[1:]], dtype=np.float32) for i in session.get_inputs()}
    assert session.run(None, feeds)[0].shape == (2, 4 * 8, 8, 8)


@pytest.mark.slow
def test_export_command_writes_a_network_of_the_published_size(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    result = run("export", "--architecture", ALL_CONV, "--out", file)
    assert result.exit_code == 0, result.output
    weights = sum(int(np.prod(i.dims)) for i in onnx.load(file).graph.initializer if len(i.dims) > 1)
    # Every convolution and the classifier; batch norms were folded into biases.
    sizes = get_space("nasbench201").setting("cifar")
    network = ChildNetwork(SizedSpace(get_space("nasbench201"), sizes), get_space("nasbench201").parse(ALL_CONV))
    assert weights == sum(p.numel() for p in network.parameters() if p.dim() > 1)


def test_export_command_writes_pretrained_weights(run: Run, tmp_path: Path) -> None:
    space = get_space("nasbench201")
    torch.manual_seed(7)
    network = ChildNetwork(SizedSpace.named(space, "cifar").resized(channels=4, depth=1), space.parse(ALL_CONV))
    save_weights(network.state_dict(), tmp_path / "weights.safetensors")
    file, sizes = tmp_path / "network.onnx", ("--channels", 4, "--cells", 1)
    words = ("export", "--architecture", ALL_CONV, *sizes, "--weights", tmp_path / "weights.safetensors", "--out", file)
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "weights.safetensors fits 22 of 22 layers, 100.0% of the parameters (hwnas's names)" in result.stdout
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network.eval()(images).numpy()
    np.testing.assert_allclose(open_session(file)(images.numpy()), expected, rtol=1e-3, atol=1e-4)


def test_drop_path_drops_whole_edges_and_keeps_the_mean() -> None:
    dropped = drop_path(0.25, torch.Generator().manual_seed(0), 1, 4000)(torch.ones(4000, 2, 3, 3))
    by_image = dropped.flatten(1)
    assert bool(((by_image == 0).all(dim=1) | torch.isclose(by_image, torch.tensor(4 / 3)).all(dim=1)).all())
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("side", [15, 17])
def test_odd_images_pass_through_every_operation(side: int) -> None:
    sizes = Setting(channels=4, depth=3, height=side, width=side, pool_norm=True)
    supernet = Supernet(SizedSpace(get_space("darts"), sizes)).eval()
    uniform = {k: torch.full((14, 8), 1 / 8) for k in ("normal", "reduce")}
    assert supernet(torch.randn(2, 3, side, side), {k: Mixed(w) for k, w in uniform.items()}).shape == (2, 10)
    small = Supernet(SizedSpace(get_space("nasbench201"), Setting(channels=4, depth=1, height=side, width=side))).eval()
    assert small(torch.randn(2, 3, side, side), {"cell": Mixed(torch.full((6, 5), 0.2))}).shape == (2, 10)


# --- networks for the browser -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_networks_for_the_browser_compute_the_same(tmp_path: Path, name: str) -> None:
    """ReLUs that no convolution applies become max(x, 0), as in ONNX Runtime's optimised graph."""
    space, setting = CELL_SPACES[name], SMALL[name]
    generator = np.random.default_rng(3)
    replaced = 0
    for number in range(6):
        choices = generator.integers(len(space.operations), size=(1, space.num_edges))
        child = ChildNetwork(SizedSpace(space, setting), decode(space, choices[0]), prune=True)
        child.eval()
        image = torch.randn(2, setting.image_channels, setting.height, setting.width)
        before, after, again = (tmp_path / f"{number}-{form}.onnx" for form in ("relu", "web", "twice"))
        write_onnx(child, [image], before)
        convert_for_web(before, after)
        convert_for_web(after, again)
        assert again.read_bytes() == after.read_bytes()
        outputs = []
        for file in (before, after):
            options = onnxruntime.SessionOptions()
            # As far as onnxruntime-web goes: no blocked layouts.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(file.with_suffix(".optimised.onnx"))
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            outputs.append(session.run(None, {"input0": image.numpy()})[0])
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4 * np.abs(outputs[0]).max())
        optimised = onnx.load(after.with_suffix(".optimised.onnx"))
        replaced += sum(node.op_type == "Max" for node in optimised.graph.node)
        left = [node.input[0] for node in optimised.graph.node if node.op_type == "Relu"]
        writers = {out: node.op_type for node in optimised.graph.node for out in node.output}
        # What is left as a ReLU has been taken into its convolution, but for sums of two convolutions.
        assert all(writers.get(tensor) == "Add" for tensor in left), [writers.get(tensor) for tensor in left]
    assert replaced > 0


@pytest.mark.parametrize("side", [15, 16])
def test_a_pointwise_convolution_of_few_channels_equals_torchs_in_training(side: int) -> None:
    images = torch.randn(2, 4, side, side, dtype=torch.float64, requires_grad=True)
    own = Pointwise(4, 3, stride=2).double()
    mine, torchs = own.train()(images), own.eval()(images)
    assert torch.equal(mine, torchs)
    slope = torch.randn_like(mine)
    wanted = [images, own.weight]
    for found, expected in zip(
        torch.autograd.grad(mine, wanted, slope), torch.autograd.grad(torchs, wanted, slope), strict=True
    ):
        torch.testing.assert_close(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.sampled_from([3, 5]),
    dilation=st.integers(2, 4),
    by_dilation=st.booleans(),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_a_dilated_convolution_equals_torchs_in_training(
    kernel: int, dilation: int, by_dilation: bool, size: tuple[int, int], layout: torch.memory_format
) -> None:
    """Compare output and gradients, with grids of equal and of different sizes."""
    images = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    own = DilatedDepthwise(3, kernel, dilation if by_dilation else 1, dilation).double()
    divisible = not (size[0] % dilation or size[1] % dilation)
    assert (own.grids(images) is not None) == (by_dilation or divisible)
    mine, torchs = own.train()(images), own.eval()(images)
    torch.testing.assert_close(mine, torchs)
    slope, wanted = torch.randn_like(torchs), [images, own.weight]
    for found, expected in zip(
        torch.autograd.grad(mine, wanted, slope), torch.autograd.grad(torchs, wanted, slope), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (16, 15)])
def test_a_factorized_reduction_reads_the_same_pixels_in_training(size: tuple[int, int]) -> None:
    """In training it pads, which keeps the gradient channels last; the exported form slices."""
    module = FactorizedReduce(Workload("factorized_reduce", 8, 6, *size), affine=False).double()
    images = torch.randn(2, 8, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    found = [module.train(training).halves(images) for training in (True, False)]
    assert torch.equal(*found)
    slopes = [torch.autograd.grad(y, images, torch.ones_like(y))[0] for y in found]
    torch.testing.assert_close(*slopes)
    assert slopes[0].is_contiguous(memory_format=torch.channels_last)
