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


def space_of_run(manifest: Mapping[str, Any], name: str, run: Path) -> SearchSpace:
    """Return the space ``name`` of a run: a built-in one, the run's copy of a YAML file, or a Python object.

    Raises HwnasError when it is missing or its definition has changed since the search.
    """
    recorded = manifest.get("space_definition")
    if recorded is None:
        return get_space(name)
    if not isinstance(recorded, dict) or not isinstance(recorded.get("import", ""), str):
        raise HwnasError(f"{run / 'manifest.json'} is incomplete (space_definition)", "search again")
    space = get_space(recorded.get("import") or str(run / SPACE_FILE))
    require_same_definition(manifest, space, run)
    return space


def require_same_definition(manifest: Mapping[str, Any], space: SearchSpace, run: Path) -> None:
    """Raise HwnasError when the run's space has this space's name and another definition."""
    recorded = manifest.get("space_definition", {}).get("sha256")
    if manifest.get("space") == space.name and space.origin and recorded != space.origin.sha256:
        raise HwnasError(
            f"{run} is a run of space {space.name}@{str(recorded)[:12]}, but {space.spec} now defines {space.key}",
            "undo the change, or search again with another --out",
        )
