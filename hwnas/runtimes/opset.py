"""The ONNX opset of the models that are timed. Some compilers of NPUs know only older ones, or run them faster."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hwnas.errors import HwnasError

OPSET = 18
OPSETS = range(11, 21)  # torch's exporter writes up to 20; before 11 ONNX does not define all poolings used here
LEAST_INT8 = 13  # the first opset that quantises per channel


def parse_opset(text: str) -> int:
    """Return the opset in ``text``. Raises HwnasError for another number than those of ``OPSETS``."""
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) not in OPSETS:
        raise HwnasError(
            f"networks are not written in ONNX opset {text!r}", f"use {OPSETS[0]} to {OPSETS[-1]}; {OPSET} is usual"
        )
    return int(text)


def opset_of(options: Mapping[str, object]) -> int:
    """Return the opset among the options of a table. Raises HwnasError for one that hwnas does not write."""
    return parse_opset(str(options.get("opset", OPSET)))
