"""Prune the trained networks of a search to a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.runs.schema import NetworkRow


def prune(
    run: Path | str,
    budget: str,
    recipe: str = "quick",
    *,
    epochs: int | None = None,
    mask_epochs: int = 10,
    multiple: int = 1,
    distil: bool = False,
    data: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    compute: str | None = None,
    precision: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> list[NetworkRow]:
    """Make the trained networks of a run narrower, train them, and return one row for each target.

    ``budget`` is one limit: an amount such as ``120M-macs`` or ``4.5ms``, or a share of what the whole network has:
    ``50%-macs``, or ``70%`` of its latency as measured now. Which channels leave is learned in ``mask_epochs`` epochs
    (hwnas.training.widths). ``multiple`` keeps widths to whole multiples. The narrower network is then trained by
    ``recipe``, as ``hwnas.train`` does, whose other arguments change it; ``epochs`` 0 leaves that out. With ``distil``
    the network that is pruned is its teacher, unless the recipe has another. It gets a folder of its own in that of its
    target and is timed where its device is this machine. A row has ``pruning``, with the widths of all layers. An
    interrupted call resumes when it is repeated.

    Raises HwnasError when a network is untrained or already pruned, when the budget cannot be met or leaves nothing to
    prune, and for a limit on latency when the device is not this machine, there are several, or they run int8 networks.
    """
    from hwnas.errors import HwnasError
    from hwnas.runs.prune import prune_run
    from hwnas.training.recipe import read_training

    for name, value in (("mask_epochs", mask_epochs), ("multiple", multiple)):
        if value < 1:
            raise HwnasError(f"{name} is {value}", "give a whole number from 1")
    changes: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.lr": learning_rate,
        "compute": compute,
        "precision": precision,
        "seed": seed,
    }
    settings = read_training(recipe, changes)
    progress = progress or Progress(quiet=True)
    return prune_run(Path(run), budget, recipe, settings, mask_epochs, multiple, distil, data, progress)
