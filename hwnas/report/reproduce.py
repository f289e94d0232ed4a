"""The commands that reproduce a run, and the files that they read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from hwnas.report.run_content import RunContent
from hwnas.spaces.space_copy import SPACE_FILE
from hwnas.tables.io import table_text
from hwnas.tables.network_key import named_setting


def inputs(run: RunContent, prefix: str) -> dict[str, str]:
    """Return the files that the commands read besides the images: recipe, latency tables, and a user's own space."""
    import yaml

    files = {f"{prefix}recipe.yaml": yaml.safe_dump(run.manifest.recipe.to_json(), sort_keys=True)}
    if (text := _own_file(run)) is not None:
        files[f"{prefix}{SPACE_FILE}"] = text
    return files | {f"{prefix}tables/{device}.json": table_text(table) for device, table in run.tables.items()}


def commands(run: RunContent, folder: str, prefix: str) -> list[str]:
    """Return shell lines that search, verify and report into a new folder; ``folder`` holds the ``inputs``."""
    manifest, setting = run.manifest, run.sized.setting
    options: list[tuple[str, Sequence[str]]] = [
        ("--space", [run.space.spec if _own_file(run) is None else f"{folder}/{prefix}{SPACE_FILE}"]),
        ("--setting", [named_setting(run.sized)]),
        ("--channels", [str(setting.channels)]),
        ("--layers", [str(setting.depth)]),
        ("--table", [f"{folder}/{prefix}tables/{device}.json" for device in run.tables]),
        *_search_network(run),
        ("--data", [manifest.data]),
        ("--budget", manifest.budgets),
        ("--method", [manifest.recipe.method]),
        ("--recipe", [f"{folder}/{prefix}recipe.yaml"]),
        ("--plugin", ["plugin.py"] if manifest.plugin else []),
        ("--out", [f"runs/{run.name}-again"]),
    ]
    words = ["hwnas", "search", *(f"{name}={value}" for name, values in options for value in values)]
    lines = [shlex.join([*words, *["--verify"] * manifest.verify])]
    return [*lines, *(shlex.join(["hwnas", word, f"runs/{run.name}-again"]) for word in ("verify", "report"))]


def _search_network(run: RunContent) -> list[tuple[str, Sequence[str]]]:
    """Return the options of a search whose target network has other sizes or images than its search network."""
    if not run.has_proxies:
        return []
    target, search = run.sized.setting, run.search_sized.setting
    options: list[tuple[str, Sequence[str]]] = [
        ("--input", [f"{target.image_channels}x{target.height}x{target.width}"]),
        ("--classes", [str(target.classes)]),
        ("--target-data", [run.manifest.target_data] if run.manifest.target_data else []),
        ("--search-channels", [str(search.channels)]),
        ("--search-layers", [str(search.depth)]),
    ]
    named = named_setting(run.search_sized)
    same_blocks = run.space.settings[named].stem, run.space.settings[named].pool_norm
    # No setting has the blocks of a search network with the stem of its target: the default gives it again.
    return [*options, ("--search-setting", [named] if same_blocks == (search.stem, search.pool_norm) else [])]


def _own_file(run: RunContent) -> str | None:
    """Return the text of the space if it is a file of the user."""
    return run.space.origin.text if run.space.origin else None


def versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())
