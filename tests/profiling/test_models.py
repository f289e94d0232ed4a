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
from hwnas.spaces import SPACES, SizedSpace, Workload
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
    depth = None if space.is_chain else SMALL[name].depth
    small = space.setting(space.search_setting, channels=4, depth=depth)
    for workload in SizedSpace(space, small).network.workloads():
        module, inputs = torch_model(Repeated(workload, 2), batch=3)
        result = module.eval()(*inputs)
        shapes = [r.shape for r in (result if isinstance(result, tuple) else (result,))]
        assert len(shapes) == (1 if is_chainable(workload) else 2)
        assert all(shape[:2] == (3, workload.out_channels) for shape in shapes)


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
