"""Another number of classes than the table's: exact counts, and a latency between the bounds of the head's size."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from hwnas.calibration.intervals import half_intervals
from hwnas.calibration.residual import fit_residual
from hwnas.cost.build import build_metrics
from hwnas.cost.carried_head import carry_head, head_notes
from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import Count, count_network, count_workload
from hwnas.spaces import SizedSpace, Workload
from hwnas.spaces.encoding import encode
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from support.spaces import ALL_CONV, DARTS, NB201, SMALL, architectures
from support.tables import make_table

TEN, HUNDRED = (SizedSpace(NB201, NB201.setting("cifar", classes=classes)) for classes in (10, 100))
CELLS = (
    ALL_CONV,
    "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "|skip_connect~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|",
)
CHOICES = encode(NB201, [NB201.parse(cell) for cell in CELLS])
MEASURED = ("amd-epyc-zen5-vm-onnxruntime", "amd-epyc-zen5-vm-torch")
FITTED = ("published-pixel3", "published-1080ti-256")


@cache
def of(name: str) -> LatencyTable:
    return read_table(shipped("latency_tables") / f"{name}.json")


@cache
def counts_of_network(cell: str) -> Count:
    return count_network(ChildNetwork(HUNDRED, NB201.parse(cell)))


def bytes_of_head(classes: int) -> int:
    """Count by hand what the head of NAS-Bench-201 moves at 64 channels of 8x8, in float32.

    The batch norm reads, writes and has 64 weights; the pooling reads and writes; the linear layer reads 64 values.
    """
    image = 64 * 8 * 8
    return 4 * ((image + image + 64) + (image + 64) + (64 + 64 * classes + classes))


@pytest.mark.parametrize("name", [*MEASURED, *FITTED])
def test_counts_of_the_carried_network_are_those_of_the_real_one(name: str) -> None:
    costs = build_metrics(of(name), HUNDRED)
    for cell in CELLS[1:]:
        architecture = NB201.parse(cell)
        counted = counts_of_network(cell)
        assert costs["params"].predict(architecture) == counted.params
        assert costs["macs"].predict(architecture) == counted.macs_conv_linear


@pytest.mark.parametrize("op", ["pool_linear", "window_pool_linear", "norm_relu_pool_linear"])
def test_an_entry_of_a_carried_head_counts_as_fvcore_does(op: str) -> None:
    """Whatever the head of the space, which both conventions count."""
    space = NB201 if op.startswith("norm") else DARTS
    setting = replace(SMALL[space.name], stem="imagenet" if op.startswith("window") else "cifar")
    known = SizedSpace(space, replace(setting, height=64, width=64))
    table = make_table(known)
    for classes in (1, 3, 170):
        wanted = known.resized(classes=classes)
        assert wanted.network.head.op == op
        carried, _ = carry_head(table, wanted)
        (entry,) = (entry for entry in carried.entries if entry.workload == wanted.network.head)
        counted = count_workload(wanted.network.head)
        assert (entry.macs, entry.macs_conv_linear) == (counted.macs_fvcore, counted.macs_conv_linear)
        assert entry.params == counted.params


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_head_grows_by_half_of_what_its_bytes_allow(name: str) -> None:
    table = of(name)
    (head,) = (e for e in table.entries if e.workload == Workload("norm_relu_pool_linear", 64, 10, 8, 8))
    half_ms = head.latency_ms * (bytes_of_head(100) / bytes_of_head(10) - 1) / 2
    half_ms *= table.correction[TEN.key].scale
    before = build_metrics(table, TEN)["latency_ms"].predict_many(CHOICES)
    after = build_metrics(table, HUNDRED)["latency_ms"].predict_many(CHOICES)
    assert after - before == pytest.approx(half_ms)
    assert (after / before - 1).max() < 0.02  # the head is a small part of the network

    known, wider = half_intervals(table, TEN, CHOICES), half_intervals(table, HUNDRED, CHOICES)
    assert known is not None
    assert wider is not None
    assert wider == pytest.approx(np.hypot(known, norm.ppf(0.95) / norm.ppf(0.975) * half_ms), rel=1e-4)


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_network_gains_half_of_the_time_that_it_takes_for_as_many_bytes(name: str) -> None:
    table = of(name)
    before, after = build_metrics(table, TEN), build_metrics(table, HUNDRED)
    more_bytes = 4 * (64 * 90 + 90)

    def mean(metric: str) -> float:
        """Average the decomposable cost over a sample of all architectures, by brute force."""
        base, edges = before[metric].linear()  # type: ignore[union-attr]
        generator = np.random.default_rng(0)
        drawn = generator.integers(5, size=(20_000, 6))
        return float(base + edges["cell"][np.arange(6), drawn].sum(axis=1).mean())

    half_ms = mean("latency_ms") / mean("memory_access_bytes") * more_bytes / 2
    gained = after["latency_ms"].predict_many(CHOICES) - before["latency_ms"].predict_many(CHOICES)
    assert gained == pytest.approx(half_ms, rel=0.02)
    assert after["memory_access_bytes"].predict(NB201.parse(ALL_CONV)) == pytest.approx(
        before["memory_access_bytes"].predict(NB201.parse(ALL_CONV)) + more_bytes
    )
    known, wider = half_intervals(table, TEN, CHOICES), half_intervals(table, HUNDRED, CHOICES)
    assert known is not None
    assert wider is not None
    assert wider == pytest.approx(np.hypot(known, norm.ppf(0.95) / norm.ppf(0.975) * gained), rel=1e-4)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2_000), st.sampled_from([*MEASURED, *FITTED]), architectures("nasbench201"))
def test_more_classes_never_take_less_time(classes: int, name: str, architecture) -> None:  # type: ignore[no-untyped-def]
    """And the head that is known is within the carried one's interval."""
    table, wanted = of(name), TEN.resized(classes=classes)
    _, carried = carry_head(table, wanted)
    if classes == 10:
        assert carried is None
        return
    assert carried
    assert carried.known == TEN
    assert carried.added_ms * (classes - 10) > 0
    assert abs(carried.added_ms) == pytest.approx(carried.error_ms)
    difference = build_metrics(table, wanted)["latency_ms"].predict(architecture) - (
        build_metrics(table, TEN)["latency_ms"].predict(architecture)
    )
    assert difference == pytest.approx(carried.added_ms, rel=1e-6, abs=1e-9)


def test_a_table_is_not_changed_and_one_that_fits_is_returned_as_it_is() -> None:
    for name in (*MEASURED, *FITTED):
        table = of(name)
        before = table.sha256
        assert carry_head(table, TEN) == (table, None)
        assert carry_head(table, TEN)[0] is table
        carried, _ = carry_head(table, HUNDRED)
        assert table.sha256 == before
        assert carried.sha256 != before
        assert carry_head(table, HUNDRED.resized(channels=32)) == (table, None)


def test_of_several_heads_the_nearest_is_carried() -> None:
    """Ten classes are nearer to 30 than 200 are: the ratio of the sizes counts."""
    sized = SizedSpace(NB201, SMALL["nasbench201"])
    table = make_table(sized)
    for classes in (200, 80):
        carried, _ = carry_head(table, sized.resized(classes=classes))
        table = table.model_copy(update={"entries": carried.entries})
    found = {classes: carry_head(table, sized.resized(classes=classes))[1] for classes in (5, 10, 26, 30, 90, 500)}
    assert {classes: c.known.setting.classes if c else None for classes, c in found.items()} == {
        **{5: 10, 10: None, 26: 10},
        **{30: 80, 90: 80, 500: 200},
    }


def test_the_residual_predictor_is_that_of_the_known_network() -> None:
    table = of(MEASURED[0])
    known, carried = (fit_residual(table, sized) for sized in (TEN, HUNDRED))
    ratios = [p.predict_many(CHOICES) / p.model.predict_many(CHOICES) for p in (known, carried)]
    assert ratios[0] == pytest.approx(ratios[1])
    assert (carried.predict_many(CHOICES) > known.predict_many(CHOICES)).all()


def test_a_note_says_what_was_carried_how_far_and_what_measures_it() -> None:
    tables = {name: of(name) for name in (*MEASURED, *FITTED)}
    assert head_notes(tables, TEN) == []
    notes = head_notes(tables, HUNDRED)
    assert len(notes) == 4
    for name, note in zip(tables, notes, strict=True):
        assert note.startswith(f"{name}: made for 10 classes, not 100: the head is carried over by its size")
        command = "table fit" if name in FITTED else "profile"
        assert f"hwnas {command} --space nasbench201 --classes 100 " in note
        assert "\n" not in note


def test_where_more_than_the_head_is_missing_the_sizes_that_differ_come_first() -> None:
    for name in MEASURED:
        for changes, words in (
            ({"channels": 32}, "the table is for 16 channels, not 32: it lacks"),
            ({"channels": 32, "classes": 100}, "is for 16 channels, not 32, and for 10 classes, not 100: it lacks"),
            ({"height": 64, "width": 64}, "the table is for 3x32x32 input, not 3x64x64: it lacks"),
            ({"channels": 32, "depth": 3}, "the table is for 16 channels, not 32: it lacks"),
        ):
            with pytest.raises(HwnasError, match=words) as refused:
                build_metrics(of(name), TEN.resized(**changes))
            assert refused.value.problem.index("it lacks") < refused.value.problem.index("-s1")
            assert "hwnas profile --space nasbench201" in refused.value.fix
    for name in FITTED:
        with pytest.raises(HwnasError, match="is for depth 5, not 3: it was fitted to whole networks") as refused:
            build_metrics(of(name), TEN.resized(depth=3))
        assert "hwnas table fit --space nasbench201 --layers 3 --measurements" in refused.value.fix


def test_a_table_that_names_no_network_says_the_sizes_of_its_stem_and_head() -> None:
    sized = SizedSpace(NB201, SMALL["nasbench201"])
    for wanted, words in (
        (sized.resized(channels=8), "the table is for 4 channels, not 8: it lacks"),
        (sized.resized(height=32, width=32), "the table is for 3x16x16 input, not 3x32x32: it lacks"),
        (sized.resized(image_channels=1, classes=7), "for 3x16x16 input, not 1x16x16, and for 10 classes, not 7"),
        (SizedSpace(DARTS, SMALL["darts"]), "^the table lacks .* of space darts"),
    ):
        with pytest.raises(HwnasError, match=words):
            build_metrics(make_table(sized), wanted)
