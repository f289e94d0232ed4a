"""Write the manifest of a run, or check that a folder holds the same run."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.errors import HwnasError
from hwnas.files import sha256_of, sha256_of_file, unwritable, write_json, write_text
from hwnas.runs.folder import MANIFEST, table_file
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.records import read_manifest
from hwnas.runs.request import SearchRequest
from hwnas.runs.two_networks import TwoNetworks
from hwnas.spaces import SearchSpace
from hwnas.spaces.space_copy import SPACE_FILE, definition_as_json, require_same_definition
from hwnas.tables.io import write_table
from hwnas.tables.schema import today

PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "scipy", "pillow", "scikit-learn")


def describe_run(request: SearchRequest, networks: TwoNetworks, computed: dict[str, str]) -> Manifest:
    """Return the manifest of a search; its digest is the hash of everything that decides what the search computes.

    ``computed`` says what computes the supernet (hwnas.runs.settle).
    """
    sized, data = networks.target_sized, networks.data
    inputs: dict[str, Any] = {
        "space": sized.space.name,
        **definition_as_json(sized.space),
        "setting": asdict(sized.setting),
        "tables": {device: table.sha256 for device, table in request.tables.items()},
        **_describe_search_network(request, networks),
        "data": request.data_spec,
        "data_fingerprint": data.fingerprint,
        "budgets": request.budgets,
        "recipe": request.recipe.model_dump(mode="json"),
        "verify": request.verify,
        **({"plugin": sha256_of_file(request.plugin)} if request.plugin else {}),
        **_describe_pretrained(request.recipe.pretrained),
    }
    packages = {name: version(name) for name in PACKAGES}
    return Manifest(
        **inputs,
        digest=sha256_of(inputs),
        versions={"hwnas": __version__, "python": platform.python_version(), **packages},
        started=today(),
        computed=computed,
    )


def _describe_pretrained(file: str | None) -> dict[str, str]:
    """Return the hash of the weights that the supernet starts from, if any. Raises HwnasError for a missing file."""
    if not file:
        return {}
    if not Path(file).is_file():
        raise HwnasError(f"there is no file {file}", "name the file of pretrained weights with --weights")
    return {"pretrained": sha256_of_file(Path(file))}


def _describe_search_network(request: SearchRequest, networks: TwoNetworks) -> dict[str, Any]:
    """Return what differs between both networks; nothing where they are equal, as in older runs."""
    found: dict[str, Any] = {}
    if networks.search_sized != networks.target_sized:
        found["search_setting"] = asdict(networks.search_sized.setting)
    if request.target_data_spec and networks.target_data:
        found["target_data"] = request.target_data_spec
        found["target_data_fingerprint"] = networks.target_data.fingerprint
    return found


def write_manifest(request: SearchRequest, space: SearchSpace, manifest: Manifest, folder: Path) -> None:
    """Write the manifest, the latency tables and a user's own space.

    Raises HwnasError when the folder cannot be written or holds a run with other inputs. The manifest of the same run
    stays as it is.
    """
    file = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if file.exists():
        present = read_manifest(folder, f"remove folder {folder}")
        require_same_definition(present.space, present.space_definition, space, folder)
        if present.digest != manifest.digest:
            raise HwnasError(
                f"{folder} holds a run with other settings, data, table or budgets", "give another folder with --out"
            )
        return
    if space.origin and space.origin.text is not None:
        write_text(folder / SPACE_FILE, space.origin.text)
    write_json(file, manifest.to_json())
    for device, table in request.tables.items():
        write_table(folder / table_file(request.tables, device), table)
