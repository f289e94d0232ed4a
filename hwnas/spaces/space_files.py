"""Read the spaces that users define: a YAML file of cells or of a chain, or a SearchSpace in a Python module."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import decode_text, sha256_of
from hwnas.imports import import_object
from hwnas.spaces.cell import NONE
from hwnas.spaces.sized_space import SizedSpace
from hwnas.spaces.space import SearchSpace, SpaceOrigin
from hwnas.spaces.user_chain import ChainDefinition
from hwnas.spaces.user_space import SPACE_NAME, SpaceDefinition, described

HOW = "docs/how-to/own-space.md has an example"
MAX_BYTES = 64 << 10


def read_space(path: Path, builtin: tuple[str, ...]) -> SearchSpace:
    """Read the space that a YAML file defines. It cannot have one of the names ``builtin``.

    Raises HwnasError that names the file and the invalid field.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HwnasError(f"space {path} is larger than {MAX_BYTES >> 10} KiB", HOW)
        data = path.read_bytes()
    except OSError as error:
        raise HwnasError(f"cannot read space {path}: {error.strerror}", HOW) from None
    space = parse_space(str(path), decode_text(data, f"space {path}", HOW))
    if space.name in builtin:
        raise HwnasError(f"space {path}: name: {space.name} is a built-in space", "use another name")
    return space


@cache  # the same text gives the same object
def parse_space(spec: str, text: str) -> SearchSpace:
    """Parse the text of the YAML file ``spec``: cells and the network that repeats them, or a chain of layers.

    Raises HwnasError that names the file and the invalid field.
    """
    try:
        content = _load(spec, text)
        chain = isinstance(content, dict) and "candidates" in content
        return (ChainDefinition if chain else SpaceDefinition).model_validate(content).space(spec, text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step)[:40] for step in first["loc"][:8])
        message = first["msg"].removeprefix("Value error, ")[:300]
        raise HwnasError(f"space {spec}: {where}: {message}" if where else f"space {spec}: {message}", HOW) from None


def _load(spec: str, text: str) -> Any:
    """Parse YAML without aliases and without duplicate keys."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias (*)")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if again := next((key for key in keys if keys.count(key) > 1), None):
                raise ValueError(f"the key {again} is there twice")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError) as error:
        first = " ".join(str(error).split())[:200] or type(error).__name__
        raise HwnasError(f"space {spec} is not valid YAML: {first}", HOW) from None


@cache
def import_space(path: str, builtin: tuple[str, ...]) -> SearchSpace:
    """Import the SearchSpace ``package.module:NAME``. Raises HwnasError when it is something else or incomplete."""
    found = import_object(path, "space")
    if not isinstance(found, SearchSpace):
        is_declaration = f", or write python:{path} for a backbone of your own" * isinstance(found, dict)
        raise HwnasError(
            f"space {path} is of type {type(found).__name__}", f"name a hwnas.spaces.SearchSpace{is_declaration}"
        )
    if found.name in builtin or not re.fullmatch(SPACE_NAME, found.name):
        raise HwnasError(
            f"space {path}: the name {found.name!r} is taken or invalid", "use another, of letters, digits, - and _"
        )
    if NONE not in found.operations:
        raise HwnasError(f"space {path}: operations lack none, which leaves out an edge", HOW)
    try:
        network = SizedSpace.named(found).network
        cells = [(kind, described(cell)) for kind, cell in found.cells.items()]
        digest = sha256_of([found.operations, cells, [asdict(part) for part in network.parts], found.macs_convention])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HwnasError(f"space {path} is incomplete: {type(error).__name__}: {error}", HOW) from None
    return replace(found, origin=SpaceOrigin(path, None, digest))
