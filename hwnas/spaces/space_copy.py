"""The search space in a run's folder: record a user's space in the manifest, and read it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace, get_space

SPACE_FILE = "space.yaml"


def definition_as_json(space: SearchSpace) -> dict[str, Any]:
    """Return what a manifest records of a user's space: the hash of its definition, and its file or import path."""
    if space.origin is None:
        return {}
    location = {"import": space.origin.spec} if space.origin.text is None else {"file": SPACE_FILE}
    return {"space_definition": {"sha256": space.origin.sha256, **location}}


def space_of_run(name: str, recorded: Mapping[str, Any] | None, run: Path) -> SearchSpace:
    """Return the space ``name`` of a run: a built-in one, the run's copy of a YAML file, or a Python object.

    ``recorded`` is the manifest's record of a user's own space. Raises HwnasError when the space is missing, the record
    is damaged, or the definition has changed since the search.
    """
    if recorded is None:
        return get_space(name)
    location = recorded.get("import", "")
    if not isinstance(location, str):
        raise HwnasError(f"{run / 'manifest.json'} is incomplete (space_definition.import: no text)", "search again")
    space = get_space(location or str(run / SPACE_FILE))
    require_same_definition(name, recorded, space, run)
    return space


def require_same_definition(name: str, recorded: Mapping[str, Any] | None, space: SearchSpace, run: Path) -> None:
    """Raise HwnasError when ``name``, the space of a run, is that of ``space``, but its definition is another."""
    sha256 = (recorded or {}).get("sha256")
    if name == space.name and space.origin and sha256 != space.origin.sha256:
        raise HwnasError(
            f"{run} is a run of space {space.name}@{str(sha256)[:12]}, but {space.spec} now defines {space.key}",
            "undo the change, or search again with another --out",
        )
