"""Describe the sizes of a network, and read them from the JSON of a run or a benchmark. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace, Setting, SizedSpace


def describe_sizes(setting: Setting) -> str:
    """Return a text that differs for any two settings that differ."""
    if setting.words:
        return setting.describe()
    norm = ", batch norm after pooling" * setting.pool_norm
    return f"{setting.describe()}, {setting.stem} stem{norm}"


def describe_images(setting: Setting) -> str:
    """Return the shape of a network's images and the number of classes, or the number of words, for people."""
    if setting.words:
        return f"text with {setting.classes:,} words in its vocabulary"
    return f"{setting.image_channels}x{setting.height}x{setting.width} with {setting.classes} classes"


def read_sizes(space: SearchSpace, setting: Mapping[str, Any], source: Path, fix: str) -> SizedSpace:
    """Return the space at the sizes of a ``setting`` in JSON.

    Raises HwnasError, which names ``source`` and ``fix``, for fields that are missing, no fields of a setting, or of
    another type or range.
    """
    for name, kind in get_type_hints(Setting).items():
        if name in setting and type(setting[name]) is not kind:
            raise HwnasError(f"{source} is incomplete (setting.{name}: no {kind.__name__})", fix)
    try:
        return SizedSpace(space, Setting(**setting))
    except (TypeError, HwnasError) as error:
        raise HwnasError(f"{source} is incomplete (setting: {error})", fix) from None
