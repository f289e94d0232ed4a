"""Merge tables of one device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.spaces import SizedSpace
from hwnas.tables.io import read_table
from hwnas.tables.merge import merge_tables
from hwnas.tables.schema import (
    Additivity,
    Correction,
    Entry,
    LatencyTable,
    MeasuredNetwork,
    Quality,
)
from support.command import Run, assert_one_clear_line
from support.spaces import NB201, SMALL
from support.table_samples import FEW, NETWORK, SIZE_OPTIONS, V1, V2, by_key, entries_lists, entry_of, save, table_of
from support.tables import make_table


def test_tables_of_one_device_become_one(run: Run, tmp_path: Path) -> None:
    whole = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    a = whole.model_copy(update={"entries": whole.entries[:10]})
    b = whole.model_copy(update={"entries": whole.entries[8:]})
    files = save(tmp_path / "a.json", a), save(tmp_path / "b.json", b)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    merged = read_table(tmp_path / "c.json")
    assert by_key(merged) == by_key(whole)
    assert merged.version == 1
    assert read_table(files[0]).sha256[:12] in merged.source
    assert run("table", "check", tmp_path / "c.json", *SIZE_OPTIONS).exit_code == 0


UNLIKE: dict[str, Callable[[LatencyTable], LatencyTable]] = {
    "device.fingerprint": lambda t: t.model_copy(update={"device": t.device.model_copy(update={"fingerprint": "f"})}),
    "provenance": lambda t: t.model_copy(update={"provenance": "fitted"}),
    "protocol.version": lambda t: t.model_copy(update={"protocol": t.protocol.model_copy(update={"version": 9})}),
    **{
        f"runtime.{field}": lambda t, field=field, value=value: t.model_copy(  # type: ignore[misc]
            update={"runtime": t.runtime.model_copy(update={field: value})}
        )
        for field, value in {
            "name": "torch",
            "version": "9",
            "provider": "other",
            "precision": "int8",
            "threads": 7,
            "batch": 8,
            "options": {"spinning": True},
        }.items()
    },
}


@pytest.mark.parametrize("field", UNLIKE)
def test_tables_of_different_devices_are_refused_with_the_field(run: Run, tmp_path: Path, field: str) -> None:
    a, b = save(tmp_path / "a.json", V1), save(tmp_path / "b.json", UNLIKE[field](V1))
    result = run("table", "merge", a, b, "--out", tmp_path / "c.json")
    assert_one_clear_line(result, f"a.json and .*b.json.*{field} is '.*' and '.*'")
    assert not (tmp_path / "c.json").exists()


def test_every_differing_field_is_named(run: Run, tmp_path: Path) -> None:
    b = UNLIKE["runtime.threads"](UNLIKE["runtime.version"](UNLIKE["device.fingerprint"](V1)))
    files = save(tmp_path / "a.json", V1), save(tmp_path / "b.json", b)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json")
    assert_one_clear_line(
        result, "fingerprint is '0123456789abcdef' and 'f'", "version is '1.20.0' and '9'", "threads is '2' and '7'"
    )


def test_the_entry_with_the_smaller_error_or_the_newer_one_is_kept(run: Run, tmp_path: Path) -> None:
    old = table_of(
        entry_of("relu", ms=1.0, error_ms=0.01), entry_of("sum", ms=1.0, error_ms=0.2), entry_of("conv", ms=1.0)
    )
    newer = V1.protocol.model_copy(update={"date": "2026-02-01T00:00:00Z", "rounds": 99})
    new = table_of(
        entry_of("relu", ms=1.05, error_ms=0.02),
        entry_of("sum", ms=1.25, error_ms=0.1),
        entry_of("conv", ms=1.25, error_ms=0.5),
        protocol=newer,
    )

    def kept(*tables: LatencyTable, newest: bool = False) -> dict[str, float]:
        merged = merge_tables({str(n): table for n, table in enumerate(tables)}, newest).table
        assert merged.protocol.rounds == 99  # the protocol tells of the newest entries
        return {e.op: e.latency_ms for e in merged.entries}

    assert kept(old, new) == kept(new, old) == {"relu": 1.0, "sum": 1.25, "conv": 1.25}
    assert kept(old, new, newest=True) == kept(new, old, newest=True) == {"relu": 1.05, "sum": 1.25, "conv": 1.25}
    undated = table_of(entry_of("relu"), protocol=V1.protocol.model_copy(update={"date": "not known"}))
    files = save(tmp_path / "a.json", old), save(tmp_path / "b.json", undated)
    assert run("table", "merge", *files, "--out", tmp_path / "c.json").exit_code == 0
    refused = run("table", "merge", *files, "--out", tmp_path / "d.json", "--prefer-newer")
    assert_one_clear_line(refused, "b.json does not say when")
    assert not (tmp_path / "d.json").exists()


def report(mape: float) -> Additivity:
    return Additivity(
        networks=1, mape=mape, within_5_percent=1, within_10_percent=1, kendall_tau=None, worst=1, bias=0, floor=None
    )


def test_latencies_are_scaled_to_one_machine_speed(run: Run, tmp_path: Path) -> None:
    network = MeasuredNetwork(architecture="x", latency_ms=4.0, error_ms=0.4, fitted=True)
    a = table_of(entry_of("relu", ms=1.0, error_ms=0.1), quality=Quality(sentinel_ms=0.1, sentinel_drift=0.02))
    b = table_of(
        entry_of("sum", ms=3.0, error_ms=0.3),
        quality=Quality(
            sentinel_ms=0.2,
            sentinel_drift=0.5,
            unstable=["sum-16-16-8x8-s1"],
            noise=["loud"],
            additivity={"n": report(2)},
        ),
        networks={"n": [network]},
        correction={"n": Correction(offset_ms=0.5, scale=1.5, networks=1)},
    )
    files = save(tmp_path / "a.json", a), save(tmp_path / "b.json", b)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json", "--json")
    assert result.exit_code == 0
    (note,) = json.loads(result.stdout)["notes"]
    assert "b.json: all latencies times 0.5000" in note
    merged = read_table(tmp_path / "c.json")
    kept = {e.op: e for e in merged.entries}
    assert kept["relu"] == a.entries[0]
    assert (kept["sum"].latency_ms, kept["sum"].error_ms, kept["sum"].p10_ms, kept["sum"].p90_ms) == (
        1.5,
        0.15,
        1.5,
        1.5,
    )
    (timed,) = merged.networks["n"]
    assert (timed.latency_ms, timed.error_ms) == (2.0, 0.2)
    assert (merged.correction["n"].offset_ms, merged.correction["n"].scale) == (0.25, 1.5)
    quality = merged.quality
    assert (quality.sentinel_ms, quality.sentinel_drift) == (0.1, 0.5)
    assert quality.worst_relative_error == pytest.approx(0.1)
    assert (quality.unstable, quality.noise) == (["sum-16-16-8x8-s1"], ["loud"])
    assert quality.additivity == {"n": report(2)}
    # The other way round, in the state of b.
    other = merge_tables({"b": b, "a": a}).table
    assert {e.op: e.latency_ms for e in other.entries} == {"relu": 2.0, "sum": 3.0}
    unknown = merge_tables({"a": a, "b": b.model_copy(update={"quality": Quality()})})
    assert {e.op: e.latency_ms for e in unknown.table.entries} == {"relu": 1.0, "sum": 3.0}
    assert "b has no sentinel latency" in unknown.notes[0]


def test_kept_entries_stay_unstable() -> None:
    key = entry_of("relu").workload.key
    shaky = table_of(entry_of("relu", error_ms=0.5), quality=Quality(unstable=[key]))
    sure = table_of(entry_of("relu", error_ms=0.1))
    assert merge_tables({"a": shaky, "b": sure}).table.quality.unstable == []
    assert merge_tables({"a": shaky, "b": table_of(entry_of("relu"))}).table.quality.unstable == [key]
    assert merge_tables({"a": sure, "b": table_of(entry_of("sum"))}).table.quality.worst_relative_error is None


def test_merged_networks_are_fitted_only_if_the_kept_correction_used_them() -> None:
    def with_network(offset: float, *timed: MeasuredNetwork, mape: float) -> LatencyTable:
        correction = {"n": Correction(offset_ms=offset, scale=1, networks=1)}
        return table_of(
            entry_of("relu"),
            networks={"n": list(timed)},
            correction=correction,
            quality=Quality(additivity={"n": report(mape)}),
        )

    def timed(name: str, ms: float, error_ms: float | None, fitted: bool) -> MeasuredNetwork:
        return MeasuredNetwork(architecture=name, latency_ms=ms, error_ms=error_ms, fitted=fitted)

    a = with_network(1, timed("x", 1.9, 0.1, True), timed("y", 1.9, None, False), mape=1)
    b = with_network(2, timed("y", 2.0, 0.1, True), timed("x", 2.0, 0.05, False), timed("z", 2.0, 0.1, True), mape=2)
    merged = merge_tables({"a": a, "b": b}).table
    assert merged.correction["n"].offset_ms == 1
    assert merged.quality.additivity["n"].mape == 1
    assert {n.architecture: (n.latency_ms, n.fitted) for n in merged.networks["n"]} == {
        "x": (2.0, True),
        "y": (2.0, False),
        "z": (2.0, False),
    }


def test_costs_by_edge_of_one_network_merge_only_when_equal(run: Run, tmp_path: Path) -> None:
    costs = V2.edge_costs[NETWORK]
    other = V2.model_copy(update={"edge_costs": {"darts/16x8/3x32x32/10": costs}})
    merged = merge_tables({"a": V2, "b": other, "c": V2}).table
    assert merged.version == 2
    assert merged.edge_costs == {NETWORK: costs, "darts/16x8/3x32x32/10": costs}
    changed = V2.model_copy(update={"edge_costs": {NETWORK: costs.model_copy(update={"base_ms": 0.75})}})
    files = save(tmp_path / "a.json", V2), save(tmp_path / "b.json", changed)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json")
    assert_one_clear_line(
        result, "different edge costs of nasbench201", "base: 0.5 ms in .*a.json, 0.75 ms in .*b.json", "--prefer FILE"
    )
    for chosen, base_ms in zip(files, (0.5, 0.75), strict=True):
        kept = run("table", "merge", *files, "--out", tmp_path / f"{base_ms}.json", "--prefer", chosen)
        assert kept.exit_code == 0, kept.output
        assert read_table(tmp_path / f"{base_ms}.json").edge_costs[NETWORK].base_ms == base_ms
    assert not (tmp_path / "c.json").exists()


def test_costs_by_edge_are_scaled_with_their_covariance() -> None:
    fast = V2.model_copy(
        update={"quality": Quality(sentinel_ms=1.0), "edge_costs": {}, "version": 1, "entries": [entry_of()]}
    )
    slow = V2.model_copy(update={"quality": Quality(sentinel_ms=4.0)})
    costs, scaled = V2.edge_costs[NETWORK], merge_tables({"a": fast, "b": slow}).table.edge_costs[NETWORK]
    assert scaled.base_ms == costs.base_ms / 4
    assert scaled.scatter_ms == costs.scatter_ms / 4
    assert scaled.scatter_share == costs.scatter_share
    assert scaled.covariance[3][3] == costs.covariance[3][3] / 16
    for field in ("live_ms", "always_ms", "error_ms"):
        assert getattr(scaled.cells["cell"], field)[5][3] == getattr(costs.cells["cell"], field)[5][3] / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("licences", "together"),
    [
        (["MIT", "MIT"], "MIT"),
        (["MIT", "CC0-1.0"], "MIT AND CC0-1.0"),
        (["MIT", ""], ""),
        (["A OR B", "C"], "(A OR B) AND C"),
    ],
)
def test_a_merged_table_has_all_licences(licences: list[str], together: str) -> None:
    given_tables = {str(n): table_of(entry_of(f"op{n}"), licence=licence) for n, licence in enumerate(licences)}
    merged = merge_tables(given_tables)
    assert merged.table.licence == together
    assert bool(merged.notes) == (len(set(licences)) > 1)


def test_merging_one_table_is_an_error(run: Run, tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", V1)
    assert_one_clear_line(run("table", "merge", file, file, "--out", tmp_path / "b.json"), "nothing to merge")
    assert_one_clear_line(run("table", "merge", file, tmp_path / "no.json", "--out", tmp_path / "b.json"), "no.json")


# --- tables that contradict each other --------------------------------------------------------------------------------


def unlike() -> tuple[LatencyTable, LatencyTable]:
    """Two tables of 72 shared entries: 36 agree, 35 differ by a factor of 1.5 and one by 3, all known to 1 %."""
    first = [entry_of("conv", channels=n + 1, ms=1.0, error_ms=0.01) for n in range(72)]
    factors = [1.005] * 36 + [1.5] * 35 + [3.0]
    second = [entry_of("conv", channels=n + 1, ms=f, error_ms=0.01 * f) for n, f in enumerate(factors)]
    return table_of(*first, entry_of("only_a")), table_of(*second, entry_of("only_b"))


def test_tables_that_differ_beyond_their_errors_are_refused_with_the_worst(run: Run, tmp_path: Path) -> None:
    a, b = (save(tmp_path / name, table) for name, table in zip(("a.json", "b.json"), unlike(), strict=True))
    result = run("table", "merge", a, b, "--out", tmp_path / "c.json")
    assert_one_clear_line(
        result,
        "in 36 of 72 shared entries ",
        r"\(conv-72-72-8x8-s1: 1 ms in .*a.json, 3 ms in .*b.json \(3 times\); conv-37-37.*\(1.5 times\).* and 33 more",
        "--prefer FILE or --prefer-newer.*hwnas table diff",
    )
    assert not (tmp_path / "c.json").exists()


def test_the_preferred_table_gives_all_that_both_have(run: Run, tmp_path: Path) -> None:
    a, b = unlike()
    files = save(tmp_path / "a.json", a), save(tmp_path / "b.json", b)
    for chosen, table in zip(files, (a, b), strict=True):
        out = tmp_path / "c.json"
        result = run("table", "merge", *files, "--out", out, "--prefer", tmp_path / "." / chosen.name)
        assert result.exit_code == 0, result.output
        kept = by_key(read_table(out))
        assert len(kept) == 74
        assert {key: kept[key] for key in by_key(table)} == by_key(table)
    merge = ("table", "merge", *files, "--out", tmp_path / "d.json")
    assert_one_clear_line(run(*merge, "--prefer", tmp_path / "other.json"), "other.json is not one of the tables")
    assert_one_clear_line(run(*merge, "--prefer", files[0], "--prefer-newer"), "two ways to choose")
    # Both are of one date: there is no newer one to choose.
    assert_one_clear_line(run(*merge, "--prefer-newer"), "36 of 72 shared entries")


def test_differences_of_a_few_percent_are_noted() -> None:
    a = table_of(entry_of("relu", ms=1.0, error_ms=0.01), entry_of("sum", ms=1.0, error_ms=0.01))
    b = table_of(entry_of("relu", ms=1.08, error_ms=0.005), entry_of("sum", ms=1.0, error_ms=0.02))
    merged = merge_tables({"a": a, "b": b})
    (note,) = merged.notes
    assert note.startswith("1 of 2 shared entries differ by more than their errors, by at most 8.0%: ")
    assert {e.op: e.latency_ms for e in merged.table.entries} == {"relu": 1.08, "sum": 1.0}
    # An unknown error counts as a tenth of the latency.
    unknown = table_of(entry_of("relu", ms=1.2))
    assert merge_tables({"a": table_of(entry_of("relu", ms=1.0)), "u": unknown}).notes == []


def test_latencies_are_compared_at_one_machine_speed() -> None:
    a = table_of(entry_of("relu", ms=1.0, error_ms=0.01), quality=Quality(sentinel_ms=0.1))
    b = table_of(entry_of("relu", ms=2.0, error_ms=0.02), quality=Quality(sentinel_ms=0.2))
    assert merge_tables({"a": a, "b": b}).table.entries == a.entries
    with pytest.raises(HwnasError, match="1 of 1 shared entries"):
        merge_tables({"a": a, "b": b.model_copy(update={"quality": Quality(sentinel_ms=0.1)})})


def test_timed_networks_and_corrections_that_contradict_each_other_are_refused() -> None:
    def with_network(ms: float, **correction: Any) -> LatencyTable:
        network = MeasuredNetwork(architecture="x", latency_ms=ms, error_ms=0.1, fitted=True)
        corrections = {"n": Correction(offset_ms=0.5, networks=1, **correction)}
        return table_of(entry_of(), networks={"n": [network]}, correction=corrections)

    a = with_network(1.0, scale=1.0, factors={"conv": 1.0, "pool": 0.5})
    with pytest.raises(HwnasError, match=r"1 of 1 shared timed networks \(n x: 1 ms in a, 2 ms in b \(2 times\)\)"):
        merge_tables({"a": a, "b": with_network(2.0, scale=1.0, factors={"conv": 1.0, "pool": 0.5})})
    larger = with_network(1.0, scale=1.5, factors={"conv": 1.5, "pool": 1.0})
    with pytest.raises(HwnasError, match=r"the correction of n \(in a latency = 0.5 ms \+ 1 x sum.*; in b .*1.5 x sum"):
        merge_tables({"a": a, "b": larger})
    assert merge_tables({"a": a, "b": larger}, prefer="b").table.correction == larger.correction
    # One family costs more, another less: what a network takes may be the same.
    assert merge_tables({"a": a, "b": with_network(1.0, scale=1.5, factors={"conv": 0.7, "pool": 1.0})})


def test_a_preferred_table_settles_only_what_it_has() -> None:
    a, b = unlike()
    with pytest.raises(HwnasError, match="36 of 72 shared entries"):
        merge_tables({"a": a, "b": b, "c": table_of(entry_of("only_c"))}, prefer="c")


def test_reasons_to_doubt_edge_costs_stay_with_them() -> None:
    doubted = V2.model_copy(update={"quality": Quality(suspect_readings={NETWORK: ["of two units"]})})
    other = V2.model_copy(update={"quality": Quality(), "edge_costs": {}, "version": 1, "entries": [entry_of()]})
    merged = merge_tables({"a": other, "b": doubted}).table
    assert merged.quality.suspect_readings == {NETWORK: ["of two units"]}
    (warning,) = merged.warnings
    assert "of two units" in warning


def close_to(entry: Entry) -> Entry:
    """Return an entry of the workload of ``entry`` that agrees with it within the errors."""
    return entry.model_copy(update={"latency_ms": 1.01 * entry.latency_ms, "error_ms": 0.5 * entry.latency_ms})


@FEW
@given(entries_lists(st.sampled_from(["a", "b"])), entries_lists(st.sampled_from(["c", "d"])), st.data())
def test_a_merge_has_every_workload_with_the_smallest_error(
    first: list[Entry], second: list[Entry], data: st.DataObject
) -> None:
    shared = data.draw(st.lists(st.sampled_from(first), unique_by=lambda entry: entry.workload))
    a, b = table_of(*first), table_of(*second, *map(close_to, shared))
    merged = merge_tables({"a": a, "b": b}).table
    assert set(by_key(merged)) == {*by_key(a), *by_key(b)}
    for key, kept in by_key(merged).items():
        candidates = [by_key(table)[key] for table in (a, b) if key in by_key(table)]
        assert kept in candidates
        assert (kept.error_ms is None, kept.error_ms) == min(
            ((e.error_ms is None, e.error_ms) for e in candidates), key=lambda pair: (pair[0], pair[1] or 0)
        )
    assert by_key(merge_tables({"a": a, "c": a}).table) == by_key(a)
    assert by_key(merge_tables({"m": merged, "a": a, "b": b}).table) == by_key(merged)
