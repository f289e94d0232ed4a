"""Few handwritten digits, for searches whose accuracy does not matter: ``--data FEW_DIGITS``."""

from __future__ import annotations

from typing import Any

from sklearn.datasets import load_digits

FEW_DIGITS = "python:support.few_digits:few_digits"


def few_digits() -> dict[str, Any]:
    """Return 192 digits to train with, 64 for validation and 64 for the test, of 3x16x16."""
    digits = load_digits()
    images = (digits.images * 255 / 16).round().astype("uint8")
    images = images.repeat(2, axis=1).repeat(2, axis=2)[..., None].repeat(3, axis=3)
    ends = {"train": (0, 192), "validation": (192, 256), "test": (256, 320)}
    return {"flip": False, **{name: (images[a:b], digits.target[a:b]) for name, (a, b) in ends.items()}}
