"""The file ``finalists.json`` of a run: the trainings by which its architectures were chosen. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, FiniteFloat

from hwnas.validation import Record

FINALISTS_FILE = "finalists.json"


class FinalistRow(Record):
    """One training: its stage (``first``, or ``last`` for those that were trained longer) and its results.

    ``training_loss`` is that of the last epoch; losses are cross entropies in nats.
    """

    stage: str
    architecture: str
    training_loss: FiniteFloat
    validation_loss: FiniteFloat
    validation_accuracy: FiniteFloat


class FinalistsFile(Record):
    """The trainings of all targets' finalists, which share them.

    ``setting`` are the sizes of the networks that were trained, ``candidates`` is the number of architectures that were
    compared. ``agreement`` is Kendall's tau of each source of evidence with the validation losses of the last stage;
    None where these are too few. A benchmark writes the numbers of ``trained`` networks by stage, a run ``trainings``.
    """

    setting: dict[str, Any]
    candidates: int
    trained: dict[str, int]
    agreement: dict[str, FiniteFloat | None]
    trainings: list[FinalistRow] = Field(default_factory=list)
