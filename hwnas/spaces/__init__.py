"""Search spaces as data, their operations, and the built-in spaces by name. No torch."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.spaces.cell import NONE, Cell
from hwnas.spaces.darts import DARTS
from hwnas.spaces.darts_extended import DARTS_EXTENDED
from hwnas.spaces.layers import LayerTrace
from hwnas.spaces.mobile_chains import FBNET, MOBILENETV3, PROXYLESSNAS, scaled_chain
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.spaces.operation import Operation, get_operation, num_inputs, operation_of, register
from hwnas.spaces.recurrent import RECURRENT, RECURRENT_DARTS
from hwnas.spaces.sized_space import SizedSpace
from hwnas.spaces.space import (
    HIDDEN,
    Architecture,
    CellInstance,
    FixedModule,
    Network,
    SearchSpace,
    Setting,
    Workload,
)

BUILTIN = (NASBENCH201, DARTS, DARTS_EXTENDED, FBNET, PROXYLESSNAS, MOBILENETV3, RECURRENT, RECURRENT_DARTS)
SPACES: dict[str, SearchSpace] = {space.name: space for space in BUILTIN}

__all__ = [
    "HIDDEN",
    "NONE",
    "SPACES",
    "Architecture",
    "Cell",
    "CellInstance",
    "FixedModule",
    "LayerTrace",
    "Network",
    "Operation",
    "SearchSpace",
    "Setting",
    "SizedSpace",
    "Workload",
    "builtin_space",
    "get_operation",
    "get_space",
    "num_inputs",
    "operation_of",
    "register",
]


def builtin_space(name: str) -> SearchSpace | None:
    """Return a built-in space, or a chain at a multiple of its widths (scaled_chain); None: neither."""
    return SPACES.get(name) or scaled_chain(name)


def get_space(spec: str) -> SearchSpace:
    """Return a built-in space by its name (builtin_space) or a user's own: a ``.yaml`` file, the import path
    ``package.module:NAME`` of a SearchSpace, or ``python:package.module:NAME`` of a backbone's declaration.

    Raises HwnasError when there is none.
    """
    if found := builtin_space(spec):
        return found
    if spec.endswith((".yaml", ".yml")):
        from hwnas.spaces.space_files import read_space

        return read_space(Path(spec), tuple(SPACES))
    if spec.startswith("python:"):
        from hwnas.spaces.backbone import import_backbone

        return import_backbone(spec, tuple(SPACES))
    if ":" in spec:
        from hwnas.spaces.space_files import import_space

        return import_space(spec, tuple(SPACES))
    others = "a chain at a multiple of its widths such as mobilenetv3-w1.2, FILE.yaml, package.module:NAME or "
    others += "python:MODULE:NAME"
    raise HwnasError(f"unknown space {spec!r}", f"use one of {', '.join(SPACES)}, {others}")


def _pickled(space: SearchSpace) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Pickle a space by its name or definition: the functions that it holds cannot be pickled."""
    if space.origin is None or space.origin.text is None:
        return get_space, (space.spec,)
    from hwnas.spaces.space_files import parse_space

    return parse_space, (space.origin.spec, space.origin.text)


copyreg.pickle(SearchSpace, _pickled)
