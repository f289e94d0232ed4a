"""The quality of a network on a split of images or of text. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from hwnas.text import describe_quality, quality_number


@dataclass(frozen=True)
class Quality:
    """Quality of a network on a split: the share of correct predictions, and of text the perplexity.

    The perplexity is exp of the mean cross entropy of a word.
    """

    accuracy: float
    perplexity: float | None = None

    @property
    def name(self) -> Literal["accuracy", "perplexity"]:
        return "accuracy" if self.perplexity is None else "perplexity"

    @property
    def examples(self) -> Literal["images", "words"]:
        """The name of the examples that are classified."""
        return "images" if self.perplexity is None else "words"

    @property
    def number(self) -> float:
        """The accuracy from 0 to 1, or the perplexity of text."""
        return self.accuracy if self.perplexity is None else self.perplexity

    @property
    def value(self) -> float:
        """The number by which networks are compared; the greatest is best."""
        return self.accuracy if self.perplexity is None else -self.perplexity

    def describe(self, digits: int = 1) -> str:
        """Return the accuracy with so many digits, or the perplexity of text, for people."""
        return describe_quality(self.accuracy, self.perplexity, digits)

    def bound(self, digits: int = 1) -> str:
        """Return what a better quality is: "accuracy above the 91.25%", "perplexity below the 212.4"."""
        better = "accuracy above" if self.perplexity is None else "perplexity below"
        return f"{better} the {quality_number(self.accuracy, self.perplexity, digits)}"

    def of_test(self, digits: int = 1) -> str:
        """Return the quality on the test split as the end of a sentence about a network."""
        number = quality_number(self.accuracy, self.perplexity, digits)
        if self.perplexity is None:
            return f"is right on {number} of the test images"
        return f"has a perplexity of {number} on the test text"

    def fields(self, prefix: str = "", suffix: str = "") -> dict[str, Any]:
        """Return the fields of a JSON record: ``{prefix}accuracy{suffix}`` and, of text, the perplexity."""
        found: dict[str, Any] = {f"{prefix}accuracy{suffix}": self.accuracy}
        return found if self.perplexity is None else found | {f"{prefix}perplexity{suffix}": self.perplexity}


def perplexity_of(loss: float) -> float:
    """Return exp of a mean cross entropy in nats; exp(700), about 1e304, where the loss is greater or not a number."""
    return math.exp(min(700.0, loss))
