"""Budgets with the units and signs that people write."""

from __future__ import annotations

import pytest

from hwnas.budgets.budget import Budget, parse_budget, preview
from hwnas.budgets.text import absolute_limit
from hwnas.cost.build import build_metrics
from hwnas.cost.metric import METRICS, Metric, register_metric
from hwnas.spaces import SizedSpace
from support.command import Run, assert_one_clear_line
from support.spaces import NB201, SMALL
from support.tables import make_table


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("800us", "latency_ms", 0.8),
        ("800 \N{MICRO SIGN}s", "latency_ms", 0.8),
        ("800\N{GREEK SMALL LETTER MU}s", "latency_ms", 0.8),
        ("800 US", "latency_ms", 0.8),
        ("4.5ms", "latency_ms", 4.5),
        ("4 MS", "latency_ms", 4),
        ("4Ms", "latency_ms", 4),
        ("4\N{NO-BREAK SPACE}mS", "latency_ms", 4),
        (".5 ms", "latency_ms", 0.5),
        ("2 S", "latency_ms", 2000),
        ("300M-macs", "macs", 300e6),
        ("300 M MACs", "macs", 300e6),
        ("300MMACS", "macs", 300e6),
        ("300m-macs", "macs", 300e6),
        ("2.5 M-Params", "params", 2.5e6),
        ("2.5m params", "params", 2.5e6),
        ("1g macs", "macs", 1e9),
        ("1B-params", "params", 1e9),
        ("700 K params", "params", 7e5),
        ("5 params", "params", 5),
        ("40 mb memory-access", "memory_access_bytes", 40e6),
        ("40MB-Memory-Access", "memory_access_bytes", 40e6),
        ("2 MiB - peak-memory", "peak_activation_bytes", 2 * 2**20),
        ("512KiB-peak-memory", "peak_activation_bytes", 512 * 1024),
    ],
)
def test_amounts_are_read(text: str, metric: str, bound: float) -> None:
    found = absolute_limit(text)
    assert found is not None
    assert found[0].name == metric
    assert found[1] == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "4 M",
        "4ks",
        "4 km",
        "ms",
        "4 minutes",
        "40MB",
        "40M-memory-access",
        "40Mb-memory-access",
        "4TB-memory-access",
        "1e-macs",
        "3M-flops",
    ],
)
def test_other_amounts_are_not(text: str) -> None:
    assert absolute_limit(text) is None


def test_units_of_registered_metrics_are_read_as_they_are_written() -> None:
    energy = Metric("energy", "mJ", measured=True, short="energy", units={"uJ": 1e-3, "mJ": 1.0, "J": 1e3})
    register_metric(energy)
    try:
        assert absolute_limit("3 µJ") == (energy, 0.003)
        assert absolute_limit("3mJ") == (energy, 3.0)
        assert absolute_limit("3MJ") == (energy, 3e9)
        assert absolute_limit("3 MS") is not None
        assert absolute_limit("3mj") is None
    finally:
        METRICS.pop(energy.name)


def test_relative_budgets_with_spaces_and_capitals() -> None:
    sized = SizedSpace(NB201, SMALL["nasbench201"])
    previews = preview(build_metrics(make_table(sized), sized))
    for plain, others in {
        "60%": ["60 %", "60\N{NARROW NO-BREAK SPACE}%", "60.0 %"],
        "60%-macs": ["60 %-macs", "60% - MACs"],
        "mild": ["Mild", " MILD "],
        "mild-memory-access": ["Mild-Memory-Access"],
        "60%,80%-params": ["60 % , 80 % - params"],
    }.items():
        limits = parse_budget(plain, previews).limits
        assert all(parse_budget(other, previews).limits == limits for other in others)
    micro = [parse_budget(text, previews).limits for text in ("900us", "900 µs", "900 μs", "0.9 MS")]
    assert all(limits == pytest.approx({"latency_ms": 0.9}) for limits in micro)


def test_folders_of_micro_signs_have_plain_names() -> None:
    assert {Budget(text, {}).name for text in ("800us", "800 µs", "800μs")} == {"800us"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4,5ms", r"budget '4,5ms' has a decimal comma in '4,5'; write 4\.5ms: a comma separates limits"),
        ("mild, 2,5 M-params", r"decimal comma in '2,5'; write 2\.5 M-params"),
        ("60,5%", r"write 60\.5%"),
        ("1,000us", r"write 1\.000us, or 1000us if it separates thousands"),
        ("4ms@phone,3", "cannot read budget|unknown device"),
        ("4 parsecs", "cannot read budget '4 parsecs'; use mild"),
    ],
)
def test_bad_budgets_are_one_clear_line(run: Run, table_file: object, text: str, words: str) -> None:
    sizes = ("--channels", 4, "--cells", 1, "--input", "3x16x16")
    assert_one_clear_line(run("space", "preview", "--table", table_file, *sizes, f"--budget={text}"), words)
