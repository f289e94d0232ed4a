"""Find the widths of a network that keep a limit on latency, by timing narrower networks on the device.

No table has the latency of layers of any width, and a network of more MACs may be the faster one. Networks of several
limits on MACs are therefore timed together: first over the whole range, then between the widest one that keeps the
limit on latency and the next wider one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.export.network import export_network
from hwnas.export.timing import Measured, spec_of, time_networks
from hwnas.files import read_json, sha256_of, write_json
from hwnas.networks.channels.narrow import layer_widths
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.pruning_schema import PrunedTiming

TIMED_TOGETHER = 6
ROUNDS = 2
Latency = tuple[float, float]  # milliseconds, and their error


class Stopwatch:
    """Time narrower networks on the device of a saved network, beside the whole one.

    Latencies are in the state of the machine in which the whole network was timed first. ``file`` keeps what was timed,
    for a repeat.
    """

    def __init__(self, saved: SavedNetwork, file: Path, progress: Progress) -> None:
        self.saved, self.whole, self.file, self.progress = saved, saved.child().eval(), file, progress
        (self.table,) = saved.tables.values()

    @cached_property
    def whole_ms(self) -> float:
        """The latency of the whole network, timed alone."""
        known, key = self._known(), _key(self.whole)
        if key not in known:
            (measured,) = self._time([self.whole])
            known[key] = measured.latency_ms, measured.error_ms
            write_json(self.file, known)
        return known[key][0]

    def time(self, children: Sequence[ChildNetwork]) -> list[Latency]:
        """Return the latency of each network and its error."""
        whole_ms, known = self.whole_ms, self._known()
        if missing := [child for child in children if _key(child) not in known]:
            whole, *measured = self._time([self.whole, *missing])
            scale = whole_ms / whole.latency_ms
            for child, one in zip(missing, measured, strict=True):
                known[_key(child)] = one.latency_ms * scale, one.error_ms * scale
            write_json(self.file, known)
        return [known[_key(child)] for child in children]

    def _known(self) -> dict[str, Latency]:
        return read_json(self.file, "prune again") if self.file.exists() else {}

    def _time(self, children: Sequence[ChildNetwork]) -> list[Measured]:
        spec = spec_of(self.table)
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            networks: dict[str, Path | ChildNetwork] = {str(number): child for number, child in enumerate(children)}
            if spec.runtime.takes_onnx:
                for name, child in zip(networks, children, strict=True):
                    networks[name] = Path(folder) / f"{name}.onnx"
                    export_network(child, Path(folder) / f"{name}.onnx", {}, opset=spec.opset)
            return list(time_networks(networks, spec, self.table, self.saved.sized, self.progress).values())


def _key(child: ChildNetwork) -> str:
    return sha256_of(layer_widths(child))


@dataclass(frozen=True)
class NarrowerNetwork:
    """A candidate: the network without some channels, and its MACs."""

    child: ChildNetwork
    macs: int


def within_latency(
    narrower: Callable[[float], NarrowerNetwork | None],
    time: Callable[[Sequence[ChildNetwork]], Sequence[Latency]],
    whole_macs: int,
    least: NarrowerNetwork,
    bound_ms: float,
    log: Callable[[str], None],
) -> tuple[NarrowerNetwork, list[PrunedTiming]]:
    """Return the widest network that was found to keep ``bound_ms``, and all that were timed.

    ``narrower`` returns the network within a limit on MACs, ``time`` the latencies of several networks (Stopwatch).
    ``least`` is the narrowest network. Raises HwnasError where that is too slow.
    """
    networks: dict[int, NarrowerNetwork] = {}
    timings: list[PrunedTiming] = []

    def time_all(candidates: Sequence[NarrowerNetwork]) -> None:
        for candidate, (ms, error_ms) in zip(candidates, time([c.child for c in candidates]), strict=True):
            networks[candidate.macs], kept = candidate, ms <= bound_ms
            timings.append(PrunedTiming(macs=candidate.macs, measured_ms=ms, measured_error_ms=error_ms, kept=kept))
            log(f"{candidate.macs / 1e6:.4g} M macs: {ms:.4g} ms, {'within' if kept else 'over'} {bound_ms:.4g} ms")

    low, high = least.macs, whole_macs
    for _ in range(ROUNDS):
        limits = [low + (high - low) * number / (TIMED_TOGETHER + 1) for number in range(1, TIMED_TOGETHER + 1)]
        found = {network.macs: network for limit in limits if (network := narrower(limit))}
        time_all([network for macs, network in found.items() if macs not in networks])
        low = max((timing.macs for timing in timings if timing.kept), default=least.macs)
        high = min((timing.macs for timing in timings if timing.macs > low), default=whole_macs)
    if not any(timing.kept for timing in timings):
        time_all([least])
        if not timings[-1].kept:
            problem = f"the narrowest network takes {timings[-1].measured_ms:.4g} ms"
            raise HwnasError(f"the limit of {bound_ms:.4g} ms cannot be met: {problem}", "give a larger budget")
    return networks[max(timing.macs for timing in timings if timing.kept)], timings
