"""One row of ``training.jsonl``: the training of a network in one epoch. Imports no torch."""

from __future__ import annotations

from hwnas.training.quality import Quality
from hwnas.validation import Record


class TrainingRow(Record):
    """The training of a network in one epoch.

    ``loss`` is everything that is minimised, label smoothing and auxiliary loss included. ``learning_rate`` and
    ``drop_path`` are those of the epoch. ``validation_perplexity`` is that of text, whose accuracies are the shares of
    next words that are right. ``stopped`` is the reason of an early end.
    """

    epoch: int
    loss: float
    learning_rate: float
    drop_path: float
    train_accuracy: float
    validation_accuracy: float
    validation_perplexity: float | None = None
    stopped: str = ""

    @property
    def quality(self) -> Quality:
        """The quality on the validation split."""
        return Quality(self.validation_accuracy, self.validation_perplexity)

    def describe(self) -> str:
        """Return the row as one line of a log."""
        stopped = f"; stopped: {self.stopped}" if self.stopped else ""
        share = f"{self.train_accuracy:.1%}{' of words' * (self.validation_perplexity is not None)}"
        return (
            f"epoch {self.epoch:>3}  loss {self.loss:.3f}  rate {self.learning_rate:.3g}  "
            f"drop path {self.drop_path:.3f}  training {share}  "
            f"validation {self.quality.describe()}{stopped}"
        )
