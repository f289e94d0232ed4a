"""Find the widths of a network that keep a limit on latency, by timing narrower networks on the device.

No table has the latency of layers of any width. The limit on MACs is therefore moved until the network that it leaves
keeps the limit on latency: by interpolation between the networks timed so far.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

MOST_TIMINGS = 6
REPEATS = 3  # timings of one network, the most
CLOSE = 0.02  # the search ends when the latency, or the limit on MACs, is known to this share
MARGIN = 0.1  # of an interval, by which a guess stays away from its ends


class Stopwatch:
    """Time networks of the widths of one saved network on its device. ``file`` keeps what was timed, for a repeat."""

    def __init__(self, saved: SavedNetwork, file: Path, progress: Progress) -> None:
        self.saved, self.file, self.progress = saved, file, progress
        (self.table,) = saved.tables.values()

    def time(self, child: ChildNetwork, bound_ms: float | None = None) -> tuple[float, float]:
        """Return the latency and its error in milliseconds: means over REPEATS timings.

        With ``bound_ms``, over as many as it takes until the error leaves no doubt whether the latency is within it.
        """
        known = read_json(self.file, "prune again") if self.file.exists() else {}
        timings = known.setdefault(sha256_of(layer_widths(child)), [])
        while len(timings) < REPEATS and not (timings and bound_ms and is_clear(*mean_of(timings), bound_ms)):
            measured = self._time(child)
            timings.append([measured.latency_ms, measured.error_ms])
            write_json(self.file, known)
        return mean_of(timings)

    def _time(self, child: ChildNetwork) -> Measured:
        spec = spec_of(self.table)
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            network: Path | ChildNetwork = child
            if spec.runtime.takes_onnx:
                network = Path(folder) / "network.onnx"
                export_network(child, network, {}, opset=spec.opset)
            return time_networks({"network": network}, spec, self.table, self.saved.sized, self.progress)["network"]


def mean_of(timings: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the mean of independent latencies, and its error, from pairs of a latency and its error."""
    latencies_ms, errors_ms = zip(*timings, strict=True)
    return sum(latencies_ms) / len(timings), math.hypot(*errors_ms) / len(timings)


def is_clear(latency_ms: float, error_ms: float, bound_ms: float) -> bool:
    return abs(latency_ms - bound_ms) > error_ms


@dataclass(frozen=True)
class NarrowerNetwork:
    """A candidate: the network without some channels, and its MACs."""

    child: ChildNetwork
    macs: int


def within_latency(
    narrower: Callable[[float], NarrowerNetwork | None],
    time: Callable[[ChildNetwork, float], tuple[float, float]],
    whole: tuple[int, float],
    least: NarrowerNetwork,
    bound_ms: float,
    log: Callable[[str], None],
) -> tuple[NarrowerNetwork, list[PrunedTiming]]:
    """Return the widest network that was found to keep ``bound_ms``, and all that were timed.

    ``narrower`` returns the network within a limit on MACs. ``time`` returns the latency of a network and its error,
    for comparison with a limit (Stopwatch). ``whole`` are the MACs and the latency of the whole network, ``least`` is
    the narrowest one. Raises HwnasError where that is too slow.
    """
    timings: list[PrunedTiming] = []

    def timed(candidate: NarrowerNetwork) -> PrunedTiming:
        latency_ms, error_ms = time(candidate.child, bound_ms)
        kept = latency_ms <= bound_ms
        timings.append(PrunedTiming(macs=candidate.macs, measured_ms=latency_ms, measured_error_ms=error_ms, kept=kept))
        log(f"{candidate.macs / 1e6:.4g} M macs: {latency_ms:.4g} ms, {'within' if kept else 'over'} {bound_ms:.4g} ms")
        return timings[-1]

    best = None
    low: tuple[float, float | None] = (least.macs, None)
    high: tuple[float, float] = whole
    guess = whole[0] * bound_ms / whole[1]
    for _ in range(MOST_TIMINGS):
        candidate = narrower(guess) or least
        timing = timed(candidate)
        if timing.kept:
            best, low = candidate, (candidate.macs, timing.measured_ms)
        else:
            high = candidate.macs, timing.measured_ms
        if high[0] <= (1 + CLOSE) * low[0] or (timing.kept and timing.measured_ms >= (1 - CLOSE) * bound_ms):
            break
        guess = _between(low, high, bound_ms)
    if best is None and not (timing := timed(least)).kept:
        problem = f"the narrowest network takes {timing.measured_ms:.4g} ms"
        raise HwnasError(f"the limit of {bound_ms:.4g} ms cannot be met: {problem}", "give a larger budget")
    return best or least, timings


def _between(low: tuple[float, float | None], high: tuple[float, float], bound_ms: float) -> float:
    """Return the MACs at which a line through two networks (MACs, ms) has a latency, at a distance from both.

    That is the middle where the lower latency is unknown, or not lower.
    """
    (low_macs, low_ms), (high_macs, high_ms), share = low, high, 0.5
    if low_ms is not None and low_ms < high_ms:
        share = (bound_ms - low_ms) / (high_ms - low_ms)
    return low_macs + (high_macs - low_macs) * min(max(share, MARGIN), 1 - MARGIN)
