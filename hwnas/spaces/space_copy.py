"""A search space in the folder of a run: what the manifest says of a user's own, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace, get_space

SPACE_FILE = "space.yaml"


def definition_as_json(space: SearchSpace) -> dict[str, Any]:
    """What a manifest says of a space of the user's own: the hash of what it defines, and where it is."""
    if space.origin is None:
        return {}
    place = {"import": space.origin.spec} if space.origin.text is None else {"file": SPACE_FILE}
    return {"space_definition": {"sha256": space.origin.sha256, **place}}


def kept_space(manifest: Mapping[str, Any], name: str, run: Path) -> SearchSpace:
    """The space ``name`` of a run: hwnas's own, the copy of the user's file in the run, or the module that it was
    imported from.

    Raises HwnasError when it is not there or defines something else than it did.
    """
    kept = manifest.get("space_definition")
    if kept is None:
        return get_space(name)
    if not isinstance(kept, dict) or not isinstance(kept.get("import", ""), str):
        raise HwnasError(f"{run / 'manifest.json'} is incomplete (space_definition)", "search again")
    space = get_space(kept.get("import") or str(run / SPACE_FILE))
    require_same_definition(manifest, space, run)
    return space


def require_same_definition(manifest: Mapping[str, Any], space: SearchSpace, run: Path) -> None:
    """Raises HwnasError when a run is of a space of this name that another file or module defines."""
    there = manifest.get("space_definition", {}).get("sha256")
    if manifest.get("space") == space.name and space.origin and there != space.origin.sha256:
        raise HwnasError(
            f"{run} is a run of space {space.name}@{str(there)[:12]}, but {space.spec} now defines {space.key}",
            "undo the change, or search anew with another --out",
        )
