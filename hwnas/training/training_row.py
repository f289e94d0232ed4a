"""One row of ``training.jsonl``: the training of a network in one epoch. Imports no torch."""

from __future__ import annotations

from hwnas.validation import Record


class TrainingRow(Record):
    """The training of a network in one epoch.

    ``loss`` is everything that is minimised, label smoothing and auxiliary loss included. ``learning_rate`` and
    ``drop_path`` are those of the epoch. ``stopped`` is the reason of an early end.
    """

    epoch: int
    loss: float
    learning_rate: float
    drop_path: float
    train_accuracy: float
    validation_accuracy: float
    stopped: str = ""

    def describe(self) -> str:
        """Return the row as one line of a log."""
        stopped = f"; stopped: {self.stopped}" if self.stopped else ""
        return (
            f"epoch {self.epoch:>3}  loss {self.loss:.3f}  rate {self.learning_rate:.3g}  "
            f"drop path {self.drop_path:.3f}  training {self.train_accuracy:.1%}  "
            f"validation {self.validation_accuracy:.1%}{stopped}"
        )
