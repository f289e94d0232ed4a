"""The outcome of a run in one sentence."""

from __future__ import annotations

from hwnas.report.labels import latencies_text, target_labels
from hwnas.report.run_content import RunContent
from hwnas.runs.plots import PROXY, comparable_qualities


def answer(run: RunContent) -> str:
    """Return how many networks keep their limits, and the best of these."""
    verdict = _verdict(run)
    tested, qualities = comparable_qualities(run.summary.targets)
    # Candidates are the networks known to keep their limits or, without any, those that were not timed.
    wanted = True if any(target.kept for target in run.targets) else None
    named = zip(run.targets, target_labels(run), qualities, strict=True)
    candidates = [each for each in named if each[0].kept is wanted]
    if not candidates:
        return f"{verdict}."
    best, label, quality = max(candidates, key=lambda candidate: candidate[2].value)
    if tested == PROXY:
        which = "the best proxy, that of" if len(candidates) > 1 else "the proxy of"
        untrained = "" if best.row.trained else "untrained, "
        return f"{verdict}; {which} {label} ({untrained}{latencies_text(best)}), {quality.of_test()} of the search."
    most = "the most accurate of these" if quality.name == "accuracy" else "the best of these"
    which = most if len(candidates) > 1 else "the network"
    return f"{verdict}; {which} ({label}) {quality.of_test()} at {latencies_text(best)}."


def _verdict(run: RunContent) -> str:
    timed = [target for target in run.targets if target.kept is not None]
    kept = sum(bool(target.kept) for target in timed)
    number, where = len(run.targets), "the device" if len(run.tables) == 1 else "their devices"
    networks = f"{number} network{'s' * (number > 1)} found"
    if not timed:
        return f"{networks}, within the limits as predicted; none was timed"
    if len(timed) < number:
        return f"{networks}; of the {len(timed)} that were timed on {where} {_keep(kept)} limits"
    if number == 1:
        return f"{networks}; timed on {where} it {'keeps' if kept else 'breaks'} its limits"
    return f"{networks}; timed on {where} {'all keep their' if kept == number else _keep(kept)} limits"


def _keep(number: int) -> str:
    return "1 keeps its" if number == 1 else f"{number or 'none'} keep their"
