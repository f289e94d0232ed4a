"""The file ``finalists.json`` of a run: the trainings by which its architectures were chosen. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, FiniteFloat

from hwnas.validation import Record

FINALISTS_FILE = "finalists.json"


class FinalistRow(Record):
    """One training: its stage (``first``, or ``last`` for those that were trained longer), results and reasons.

    ``training_loss`` is that of the last epoch; losses are cross entropies in nats. ``value`` is what the accuracy
    model is fitted to: minus the validation loss. All four are None where the training diverged. ``predicted`` is what
    the model expected of the first stage's value before that training, with its standard deviation; None in the first
    round.

    ``round`` (from 1) and ``targets`` proposed the architecture; ``baselines`` name the baselines that it is, such as
    "mild: random". ``evidence`` is false for a baseline that was worse than all finalists of its target.
    """

    stage: str
    architecture: str
    training_loss: FiniteFloat | None
    validation_loss: FiniteFloat | None
    validation_accuracy: FiniteFloat | None
    value: FiniteFloat | None = None
    predicted: FiniteFloat | None = None
    deviation: FiniteFloat | None = None
    round: int | None = None
    targets: list[str] = Field(default_factory=list)
    baselines: list[str] = Field(default_factory=list)
    evidence: bool = True


class AutoencoderRow(Record):
    """The graph autoencoder in whose latent space finalists were proposed, measured on ``graphs`` held-out graphs.

    ``reconstructed`` is the share of them that are decoded to the letter, ``valid`` that of random latents that are
    decoded to an architecture. The other fields measure smoothness in numbers of edges (hwnas.latent.measures); None
    where there are too few graphs.
    """

    graphs: int
    reconstructed: FiniteFloat
    valid: FiniteFloat
    distinct: int
    edges_between: FiniteFloat | None
    distance_correlation: FiniteFloat | None
    edges_changed: dict[str, FiniteFloat]
    path_valid: FiniteFloat | None
    path_detour: FiniteFloat | None
    path_jump: FiniteFloat | None


class FinalistsFile(Record):
    """The trainings of all targets' finalists, which share them.

    ``setting`` are the sizes of the networks that were trained, ``candidates`` is the number of architectures that were
    compared. ``agreement`` is Kendall's tau of each source of evidence with the validation losses of the last stage;
    None where these are too few. ``round_agreement`` is that of the model's predictions before each round with the
    values of its trainings. ``validation_images`` is the number of images that validated them, ``epochs`` are those of
    each stage. ``autoencoder`` is absent where the accuracy model proposed the finalists. A benchmark writes the
    numbers of ``trained`` networks by stage, a run ``trainings``.
    """

    setting: dict[str, Any]
    candidates: int
    trained: dict[str, int]
    agreement: dict[str, FiniteFloat | None]
    round_agreement: list[FiniteFloat | None] = Field(default_factory=list)
    validation_images: int | None = None
    epochs: dict[str, int] = Field(default_factory=dict)
    autoencoder: AutoencoderRow | None = None
    trainings: list[FinalistRow] = Field(default_factory=list)
