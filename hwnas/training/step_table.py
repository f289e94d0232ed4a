"""The tables of ``profile/steps.json``: where the time of a few search steps goes. Imports no torch."""

from __future__ import annotations

from hwnas.validation import Record


class StepSpan(Record):
    """One span of a step: milliseconds and calls a step, and its share of the step; "rest" is what no span has."""

    part: str
    ms: float
    share: float
    calls: float


class StepOperator(Record):
    """A torch operator: milliseconds of its own, without those of operators that it calls, and calls, both a step."""

    operator: str
    self_ms: float
    calls: float


class StepTable(Record):
    """The profile of one kind of step; the file holds one for each kind by its name.

    ``steps`` is the number of steps profiled, ``evaluation_ms`` the time of what the end of an epoch adds for each
    target, ``operators`` are those with the most time of their own, ``gpu_ms`` is the time of a step in which a GPU
    worked (null without one; the other times are the processor's, which queues work), ``trace`` is the Chrome trace in
    the same folder.
    """

    steps: int
    step_ms: float
    parts: list[StepSpan]
    evaluation_ms: float | None
    operators: list[StepOperator]
    trace: str = ""
    gpu_ms: float | None = None

    def describe(self, kind: str) -> list[str]:
        """Return the table of a kind of step as lines of text."""
        rows = [f"  {span.part:<12}{span.ms:>10.4g} ms{span.share:>8.1%}" for span in self.parts]
        if self.evaluation_ms is not None:
            rows.append(f"  {'evaluation':<12}{self.evaluation_ms:>10.4g} ms, once an epoch and target")
        if self.gpu_ms is not None:
            rows.append(f"  {'GPU at work':<12}{self.gpu_ms:>10.4g} ms{self.gpu_ms / self.step_ms:>8.1%}")
        slowest = ", ".join(f"{row.operator} {row.self_ms:.4g} ms" for row in self.operators[:3])
        return [
            f"profile of {self.steps} steps, {kind}: {self.step_ms:.4g} ms a step",
            *rows,
            f"  slowest operators: {slowest}" + f"; trace: {self.trace}" * bool(self.trace),
        ]
