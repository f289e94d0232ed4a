"""The fields that records of networks of words have besides those of networks of images."""

from __future__ import annotations

from pydantic import FiniteFloat

from hwnas.validation import Record


class Perplexities(Record):
    """Perplexities of a network of words, exp of the mean cross entropy; accuracies are the shares of correct words.

    ``perplexity`` is that of the test split, of an exported network that of its ONNX file. Networks of images have
    none of these fields.
    """

    perplexity: FiniteFloat | None = None
    validation_perplexity: FiniteFloat | None = None
    validation_perplexity_before_training: FiniteFloat | None = None


class TextScores(Record):
    """The quality of one runtime's scores of words."""

    accuracy: FiniteFloat
    perplexity: FiniteFloat
