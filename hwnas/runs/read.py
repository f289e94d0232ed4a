"""Read the networks of a finished run back from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwnas.budgets.budget import Budget
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.folder import ARCHITECTURE, MANIFEST, WEIGHTS
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.records import read_manifest
from hwnas.runs.schema import ArchitectureFile
from hwnas.runs.sizes import read_sizes
from hwnas.spaces import SizedSpace
from hwnas.spaces.space_copy import space_of_run
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from hwnas.text import quoted
from hwnas.validation import validate

FIX = "make one with 'hwnas search --out DIR'"


def read_networks(folder: Path) -> list[SavedNetwork]:
    """Return the networks of a run in the order of its targets, or the one network whose folder this is.

    Raises HwnasError when the folder holds none, or a file is incomplete.
    """
    if (folder / ARCHITECTURE).exists():
        # Networks of other sizes and pruned networks are in folders inside that of what they come from.
        parents = list(folder.absolute().parents)[:3]
        folders, run = [folder], next((parent for parent in parents if (parent / MANIFEST).exists()), folder.parent)
    else:
        folders, run = sorted(path.parent for path in folder.glob(f"*/{ARCHITECTURE}")), folder
    if not folders:
        raise HwnasError(f"{folder} holds no finished search", FIX)
    manifest = read_manifest(run, FIX)
    networks = [_read_network(each, run, manifest) for each in folders]
    position = {target: number for number, target in enumerate(manifest.target_ids())}
    return sorted(networks, key=lambda network: position.get(network.id, len(position)))


def _read_network(folder: Path, run: Path, manifest: Manifest) -> SavedNetwork:
    file = folder / ARCHITECTURE
    content = validate(ArchitectureFile, read_json(file, FIX), file, FIX)
    space = space_of_run(content.space, manifest.space_definition, run)
    return SavedNetwork(
        id=content.target or manifest.target_id(content.device, content.budget.text),
        folder=folder,
        table_files=content.table_files,
        tables={device: read_table(run / path) for device, path in content.table_files.items()},
        sized=read_sizes(space, content.setting, file, FIX),
        architecture=space.parse(content.architecture),
        budget=Budget(content.budget.text, content.budget.limits),
        claims_budget=content.claims_budget,
        trained=content.trained,
        pruning=content.pruning,
        run=run,
        weights=folder / WEIGHTS[content.exported_weights],
        content=content,
    )


def read_tables(networks: Sequence[SavedNetwork]) -> dict[str, LatencyTable]:
    """Return the latency tables of some networks by device name."""
    return {device: table for network in networks for device, table in network.tables.items()}


def require_trained(networks: Sequence[SavedNetwork]) -> None:
    """Raise HwnasError where a network is the untrained target network of a search."""
    if network := next((network for network in networks if not network.trained), None):
        options = "" if network.content.data else " --data DATA"
        raise HwnasError(
            f"the network in {network.folder} is untrained: its weights are random",
            f"train it with `hwnas train {quoted(network.folder)}{options}`",
        )


def load_images(networks: Sequence[SavedNetwork], spec: str | None, progress: Progress) -> ImageData:
    """Load the images of the networks, or those that ``spec`` names.

    Raises HwnasError when no images are known, and when their shape or number of classes is not that of the networks.
    """
    sized, known = networks[0].sized, spec or networks[0].content.data
    if not known:
        raise HwnasError(f"the run knows no images for its networks: {sized.setting.describe()}", "give --data")
    data = load_data(known, progress)
    if fit_to_data(sized, data) != sized:
        given = f"{data.shape} with {len(data.labels)} classes"
        if data.of_words:
            given = f"of {len(data.labels):,} different words"
        raise HwnasError(
            f"the {'words' if data.of_words else 'images'} of {data.name} are {given}, "
            f"the networks take {sized.setting.describe()}",
            "give the data of the network",
        )
    return data


def fit_to_data(sized: SizedSpace, data: ImageData) -> SizedSpace:
    """Return the space at the data's image shape and number of classes.

    Raises HwnasError for text in a space of images, and for images in one of words.
    """
    if data.of_words != sized.space.is_recurrent:
        reads, given = ("images", "text") if data.of_words else ("text", "images")
        raise HwnasError(
            f"space {sized.space.name} reads {reads}, and {data.name} is {given}",
            f"give {reads} with --data, such as {'imagefolder:PATH' if data.of_words else 'text:FOLDER'}",
        )
    channels, height, width = data.shape
    return sized.resized(image_channels=channels, height=height, width=width, classes=len(data.labels))
