"""Metrics: a quantity, its unit and its device. Only this module parses and writes their names.

Names such as ``latency_ms@phone`` occur in run folders, in budgets' limits and in ``--json`` output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hwnas.errors import HwnasError
from hwnas.units import MILLISECONDS

BYTES = "bytes"
BYTE_UNITS = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


@dataclass(frozen=True)
class Metric:
    """A cost of architectures: ``quantity`` in ``unit``, which is empty for counts.

    ``device`` names one of several devices. ``measured`` is true for what devices report, false for what depends on
    the network only. ``short`` is the quantity's name in budgets and options, ``label`` its name in pictures. ``units``
    maps every unit that a budget may be written in to its size in ``unit``; sizes in bytes share theirs.
    """

    quantity: str
    unit: str = ""
    device: str | None = None
    measured: bool = field(default=False, kw_only=True)
    short: str = field(default="", kw_only=True, compare=False)
    label: str = field(default="", kw_only=True, compare=False)
    units: Mapping[str, float] = field(default_factory=dict, kw_only=True, compare=False)

    @property
    def name(self) -> str:
        """The name in files and output: ``latency_ms``, ``latency_ms@phone``, ``macs``."""
        unit = f"_{self.unit.lower()}" if self.unit else ""
        return f"{self.quantity}{unit}{self._at_device}"

    @property
    def title(self) -> str:
        """The heading of a column: the quantity and the device, without the unit of a measured quantity."""
        return f"{self.quantity}{self._at_device}" if self.measured else self.name

    @property
    def option(self) -> str:
        """The name in options and budgets: ``latency``, ``latency@phone``, ``memory-access``."""
        return f"{self.short or self.name.partition('@')[0]}{self._at_device}"

    @property
    def is_count(self) -> bool:
        """True for metrics whose values are whole numbers: counts and numbers of bytes."""
        return self.unit in ("", BYTES)

    @classmethod
    def parse(cls, name: str) -> Metric:
        """Read a name. One that is not registered is a count."""
        base, _, device = name.partition("@")
        return replace(METRICS.get(base, cls(base)), device=device or None)

    def on(self, device: str | None) -> Metric:
        """Return this metric on a device."""
        return replace(self, device=device)

    def derived(self, quantity: str) -> Metric:
        """Return another quantity in the same unit on the same device: the bound, say, or the interval of a latency."""
        return replace(self, quantity=quantity)

    def exact(self, value: float) -> int | float:
        """Return a count or a number of bytes as an integer, another value as it is."""
        return round(value) if self.is_count else value

    def format(self, value: float) -> str:
        """Return a value with its unit, for people."""
        if self.unit == BYTES:
            unit = byte_unit(value)
            return f"{value / BYTE_UNITS[unit]:.4g} {unit}"
        if self.unit:
            return f"{value:.4g} {self.unit}"
        for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= factor:
                return f"{value / factor:.4g} {prefix} {self.quantity}"
        return f"{value:.0f} {self.quantity}" if self.short else f"{value:.4g} {self.quantity}"

    @property
    def _at_device(self) -> str:
        return f"@{self.device}" if self.device else ""


def byte_unit(value: float) -> str:
    """Return the unit in which a number of bytes is short."""
    return next((unit for unit in ("GB", "MB", "kB") if value >= BYTE_UNITS[unit]), "B")


LATENCY = Metric("latency", "ms", measured=True, short="latency", label="predicted latency", units=MILLISECONDS)
MACS = Metric("macs", short="macs", label="multiply-accumulates", units={"macs": 1.0})
PARAMS = Metric("params", short="params", label="parameters", units={"params": 1.0})
MEMORY_ACCESS = Metric("memory_access", BYTES, short="memory-access", label="memory access", units=BYTE_UNITS)
PEAK_MEMORY = Metric("peak_activation", BYTES, short="peak-memory", label="peak activation memory", units=BYTE_UNITS)

METRICS: dict[str, Metric] = {m.name: m for m in (LATENCY, MACS, PARAMS, MEMORY_ACCESS, PEAK_MEMORY)}


def register_metric(metric: Metric) -> None:
    """Make a metric known under its name; the same metric may be registered again.

    Metrics in bytes share their units. Raises HwnasError when another metric has its name, its option or one of its
    units.
    """
    others = [known for known in METRICS.values() if known != metric]
    taken = {name for known in others for name in (known.name, known.option, *known.units)}
    units = () if metric.unit == BYTES else metric.units  # a limit in bytes also names the metric
    if found := taken.intersection((metric.name, metric.option, *units)):
        raise HwnasError(f"metric {metric.name}: {', '.join(sorted(found))} is taken", "give it another name")
    METRICS[metric.name] = metric
