"""The models that a profile times: repeated operations and whole networks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.cost.fusion import pieces
from hwnas.networks.child import ChildNetwork
from hwnas.operations import build_operation, randomise
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.models import Repeated, Whole, is_chainable, repetitions, torch_model
from hwnas.spaces import Architecture, SizedSpace, Workload
from support.spaces import CELL_SPACES, SMALL, architectures


@pytest.mark.parametrize("name", sorted(CELL_SPACES))
def test_every_workload_can_be_repeated(name: str) -> None:
    space = CELL_SPACES[name]
    for setting in space.settings.values():
        network = SizedSpace(space, setting).network
        for workload in (*network.workloads(), *pieces(network)):
            few, many = repetitions(workload)
            assert 1 <= few < many
    small = space.setting(space.search_setting, channels=4, depth=1 if name == "nasbench201" else 3)
    for workload in SizedSpace(space, small).network.workloads():
        module, inputs = torch_model(Repeated(workload, 2), batch=3)
        result = module.eval()(*inputs)
        shapes = [r.shape for r in (result if isinstance(result, tuple) else (result,))]
        assert len(shapes) == (1 if is_chainable(workload) else 2)
        assert all(shape[:2] == (3, workload.out_channels) for shape in shapes)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures), st.sampled_from([1, 3]))
def test_an_assembled_network_computes_the_same_as_torch(architecture: Architecture, batch: int) -> None:
    """All copies of an operation have the same weights in both."""
    space = CELL_SPACES[architecture.space]
    setting = SMALL[architecture.space]

    def seeded(workload: Workload | None) -> torch.nn.Module:
        torch.manual_seed(0)
        return randomise(build_operation(workload))

    module = ChildNetwork(SizedSpace(space, setting), architecture, prune=True, build=seeded).eval()
    images = torch.randn(batch, setting.image_channels, setting.height, setting.width)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "assembled.onnx"
        assemble_onnx(
            Whole(SizedSpace(space, setting), architecture), path, Path(name) / "pieces", batch, own_weights=False
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        computed = session.run(None, {given.name: images.numpy()})[0]
    with torch.no_grad():
        expected = module(images).numpy()
    assert np.abs(computed - expected).max() <= 1e-4 * np.abs(expected).max()
