"""One row of ``metrics.jsonl``: the state of one target at the end of one epoch. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, FiniteFloat, model_validator

from hwnas.budgets.text import names_devices
from hwnas.text import describe_quality
from hwnas.validation import Record

METRICS = "metrics.jsonl"
Number = float | None  # NaN, which a diverged search writes, is read as None


class EpochRow(Record):
    """One target after one epoch.

    ``target`` is the id of the target in its run; older runs and benchmarks have none. ``train_loss`` and
    ``train_accuracy`` are None for a target that no step of the epoch trained, where there are more targets than steps
    in an epoch; ``validation_accuracy`` is known all the same, because targets share their weights.
    ``validation_perplexity`` is that of text, whose accuracy is the share of next words that are right.
    ``expected_cost``, ``expected_over_budget`` and ``multipliers`` (``lambda`` in JSON) have one value for every limit
    in the loss. ``skip_share`` is the share of ``skip_connect`` among the edges in use. ``stopped`` is the reason why
    the logits are no longer trained. ``probabilities[kind]`` is [E, K]; None in old runs.
    """

    epoch: int
    step: int = 0
    target: str = ""
    device: str
    budget: str
    train_loss: Number
    train_accuracy: Number = None
    validation_accuracy: Number
    validation_perplexity: Number = None
    expected_cost: dict[str, Number]
    expected_over_budget: dict[str, Number]
    multipliers: dict[str, Number] = Field(validation_alias="lambda", serialization_alias="lambda")
    resource_penalty: Number = None
    entropy: Number
    skip_share: Number = None
    stopped: str = ""
    architecture: str
    probabilities: dict[str, list[list[FiniteFloat]]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_no_step(cls, content: Any) -> Any:
        """Return a row of an older version, which has two zeros where no step trained the target, with None there."""
        names = ("train_loss", "train_accuracy")
        if isinstance(content, dict) and all(content.get(name) == 0 for name in names):
            return {**content, **dict.fromkeys(names)}
        return content

    @model_validator(mode="after")
    def _check_limits(self) -> EpochRow:
        if self.expected_over_budget.keys() != self.multipliers.keys():
            raise ValueError("lambda and expected_over_budget are not of the same metrics")
        return self

    def describe(self, with_device: bool = False) -> str:
        """Return the row as one line of a log; ``with_device`` adds the device that the budget does not name."""
        over = ", ".join(f"E[{m}]/B {_fixed(v)}" for m, v in self.expected_over_budget.items())
        multipliers = ", ".join(map(_fixed, self.multipliers.values())) or "-"
        if self.resource_penalty is not None:
            multipliers = f"none, resource penalty {self.resource_penalty:.4g}"
        stopped = f"; logits stopped: {self.stopped}" if self.stopped else ""
        device = f"{self.device} " * (with_device and not names_devices(self.budget))
        loss = "no step in this epoch" if self.train_loss is None else f"loss {self.train_loss:.3f}"
        quality = describe_quality(self.validation_accuracy, self.validation_perplexity)
        return (
            f"epoch {self.epoch:>3} {device}{self.budget:<12} {loss}  "
            f"validation {quality}  {over or 'no limit in the loss'}  lambda {multipliers}  "
            f"entropy {_fixed(self.entropy, 2)}{stopped}"
        )


def _fixed(value: Number, digits: int = 3) -> str:
    return "nan" if value is None else f"{value:.{digits}f}"
