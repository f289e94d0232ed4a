"""Sizes in which two networks differ, in words and as options of the command line."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.spaces import Setting, SizedSpace


def differences(known: SizedSpace, wanted: SizedSpace) -> dict[str, str]:
    """Return the sizes in which two networks differ, by the option that sets them: "10 classes, not 100"."""
    one, other = known.setting, wanted.setting
    sizes = [
        ("--space", "space {}", known.space.key, wanted.space.key),
        ("--setting", "the stem {}", _stem(one), _stem(other)),
        ("--channels", "{} channels", one.channels, other.channels),
        ("--layers", "depth {}", one.depth, other.depth),
        ("--input", "{} input", _image(one), _image(other)),
        ("--classes", "{} classes", one.classes, other.classes),
    ]
    return {option: f"{words.format(a)}, not {b}" for option, words, a, b in sizes if a != b}


def in_words(unlike: Mapping[str, str]) -> str:
    """Return the result of ``differences`` as text."""
    return ", and for ".join(unlike.values())


def _image(setting: Setting) -> str:
    return f"{setting.image_channels}x{setting.height}x{setting.width}"


def _stem(setting: Setting) -> str:
    return setting.stem + " with a batch norm after pooling" * setting.pool_norm
