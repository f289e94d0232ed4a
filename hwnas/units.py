"""Units of time as people write them."""

from __future__ import annotations

MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
MICRO_SIGNS = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})


def without_micro_signs(text: str) -> str:
    """Return a text with ``u`` for both micro signs, the sign of its own (U+00B5) and the Greek letter (U+03BC)."""
    return text.translate(MICRO_SIGNS)


def time_unit(text: str) -> str | None:
    """Return the unit of MILLISECONDS that a text names, in small or capital letters, or None for another text."""
    unit = without_micro_signs(text.strip()).lower()
    return unit if unit in MILLISECONDS else None
