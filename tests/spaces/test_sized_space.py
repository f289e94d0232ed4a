"""Sized spaces: the split by cell, the name of the network, equality."""

from __future__ import annotations

import numpy as np

from hwnas.spaces import SPACES, SizedSpace


def test_a_sized_space_splits_by_cell_and_names_its_network() -> None:
    darts = SPACES["darts"]
    edges = np.arange(3 * darts.num_edges).reshape(3, -1)
    rows = darts.by_cell(edges)
    assert {kind: part.shape for kind, part in rows.items()} == {"normal": (3, 14), "reduce": (3, 14)}
    np.testing.assert_array_equal(np.concatenate(list(rows.values()), axis=1), edges)
    columns = darts.by_cell(edges.T, axis=0)
    np.testing.assert_array_equal(columns["reduce"], rows["reduce"].T)
    np.testing.assert_array_equal(darts.by_cell(edges[0])["normal"], np.arange(14))
    sized = SizedSpace.named(darts, channels=9)
    assert sized.key == "darts/9x8/3x32x32/10/pool-norm"
    assert sized.network is sized.network
    assert {sized: 1}[SizedSpace.named(darts).resized(channels=9)] == 1
