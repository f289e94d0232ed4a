"""Preview budgets, search architectures within them, and derive further ones from a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.inputs import as_list, image_sizes, read_tables, require_channels_first, size_changes
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from hwnas.tables.network_key import common_network

if TYPE_CHECKING:
    from hwnas.api.inputs import InputShape, Space, Tables
    from hwnas.budgets.space_preview import SpacePreview
    from hwnas.recipe import Recipe
    from hwnas.runs.accuracy_front import AccuracyFront
    from hwnas.runs.derive import BestArchitectures, ParetoArchitectures
    from hwnas.runs.schema import SummaryRow
    from hwnas.spaces import SearchSpace


def preview(
    tables: Tables,
    budgets: str | Sequence[str] = (),
    *,
    space: Space | None = None,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
) -> SpacePreview:
    """Return the spread of every cost over a space on one or several devices, and what each budget allows.

    ``budgets`` are written as for ``search``. ``space`` and the sizes are those of the tables by default. The result
    has ``spread`` (least, quartiles and greatest of every metric, in the unit of its name), ``budgets`` with the share
    of architectures that keep each, ``notes`` on tables for another number of classes, ``describe()`` and
    ``plot(file)``. Nothing is trained.

    Raises HwnasError when a table lacks workloads of the space, and for a budget that is invalid or cannot be met.
    """
    from hwnas.budgets.space_preview import preview_space

    opened = read_tables(tables)
    sized = common_network(opened, space, setting, **size_changes(channels, layers, input_shape, classes))
    return preview_space(opened, sized, as_list(budgets))


def search(
    tables: Tables,
    out: Path | str,
    budgets: str | Sequence[str] = ("moderate",),
    *,
    space: Space | None = None,
    data: str = "digits",
    target_data: str | None = None,
    method: str | None = None,
    recipe: str | None = None,
    plugin: Path | str | None = None,
    weights: Path | str | None = None,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    search_setting: str | None = None,
    search_channels: int | None = None,
    search_layers: int | None = None,
    search_input: InputShape | None = None,
    epochs: int | None = None,
    child_epochs: int | None = None,
    finalists: int | None = None,
    baselines: bool | None = None,
    executor: str = "local",
    batch_size: int | None = None,
    seed: int | None = None,
    compute: str | None = None,
    precision: str | None = None,
    kernels: str | None = None,
    fixed_lambda: float | None = None,
    verify: bool = False,
    profile_steps: bool = False,
    progress: Progress | None = None,
) -> list[SummaryRow]:
    """Search architectures within budgets, train and export them to ``out``, and return one row for each target.

    Budgets (``4.5ms``, ``60%``, ``4ms@phone,3ms@cpu``) are about the target network: the tables', as ``space`` to
    ``classes`` change it. ``search_setting`` to ``search_input`` are the sizes of the search network, by default the
    target's or, if that is larger, the space's; ``train`` then trains the target. ``data`` and ``target_data`` are the
    images of the two. ``recipe`` is that of ``method`` by default; ``epochs`` to ``fixed_lambda`` change it; ``plugin``
    registers choices for it. A chain's supernet starts from ``weights`` as far as they fit. Each target trains
    ``finalists`` (default: 12 where cheap; 0: none) and ``baselines`` on the ``executor`` and chooses. ``verify`` times
    networks and derives again if one is over budget. A repeated call resumes. Raises HwnasError for wrong inputs.
    """
    from hwnas.runs.request import SearchRequest, SearchSizes
    from hwnas.runs.search import run_search

    opened, file, asked = read_tables(tables), _load_plugin(plugin), as_list(budgets)
    target = common_network(opened, space, setting, **(sizes := size_changes(channels, layers, input_shape, classes)))
    changes: dict[str, Any] = {"epochs": epochs, "child.epochs": child_epochs, "batch_size": batch_size, "seed": seed}
    changes |= {"compute": compute, "precision": precision, "kernels": kernels, "pretrained": _text(weights)}
    changes |= {"penalty.weight": fixed_lambda, "finalists.trainings": finalists}
    rules = _recipe(method, recipe, target.space, data, changes)
    images, fixed = _resized(data, search_input), image_sizes(sizes)
    small = SearchSizes(search_setting, search_channels, search_layers, search_input)
    where: Any = {"target_data_spec": target_data, "fixed_sizes": fixed, "search_sizes": small, "executor": executor}
    request = SearchRequest(target, opened, images, asked, rules, verify, file, baselines=baselines, **where)
    return run_search(request, Path(out), progress or Progress(quiet=True), profile_steps)


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)


def _resized(data: str, shape: InputShape | None) -> str:
    """Return the images of the search, resized to a shape where one is given."""
    from hwnas.data.sources import resized

    if shape is None:
        return data
    require_channels_first(shape)
    return resized(data, shape)


def _load_plugin(plugin: Path | str | None) -> Path | None:
    """Run the user's file, which registers choices of recipes, or operations."""
    if plugin is None:
        return None
    from hwnas.search.plugin import load_plugin

    load_plugin(Path(plugin))
    return Path(plugin)


def _recipe(method: str | None, recipe: str | None, space: SearchSpace, data: str, changes: dict[str, Any]) -> Recipe:
    """Return the recipe of a search; a space of the user's own takes those of chains or of NAS-Bench-201."""
    from hwnas.recipe import CHAIN, read_recipe, recipe_of
    from hwnas.spaces.nasbench201 import NASBENCH201

    folder = NASBENCH201.name if space.origin else space.name
    name = recipe or recipe_of(method or "snas", CHAIN if space.is_chain else folder, data)
    fixed = {} if changes["penalty.weight"] is None else {"penalty.mode": "fixed"}
    trainings = changes["finalists.trainings"]
    settings = read_recipe(name, changes | fixed | {"finalists.trainings": trainings or None})
    if trainings == 0:
        settings = settings.model_copy(update={"finalists": None})
    if method and settings.method != method:
        raise HwnasError(f"recipe {recipe} is of method {settings.method}, not {method}", "leave out --method")
    return settings


def derive(run: Path | str, top: int = 1, budgets: str | Sequence[str] = ()) -> list[BestArchitectures]:
    """Return the ``top`` most probable architectures of a search within each budget, for every target.

    ``budgets`` are those of the search by default. Each architecture has its text, the sum of its operations' log
    probabilities, and its predicted costs by metric. Nothing is trained.

    Raises HwnasError when the run is not finished, and for a budget that is invalid or cannot be met.
    """
    from hwnas.runs.derive import derive_architectures

    return derive_architectures(Path(run), as_list(budgets), top)


def derive_pareto(
    run: Path | str,
    metric: str = "latency",
    *,
    budget: str = "",
    points: int | None = None,
    plot: Path | str | None = None,
    progress: Progress | None = None,
) -> list[ParetoArchitectures]:
    """Return the Pareto set of log probability against a cost of a search, for every target, cheapest first.

    ``metric`` is ``latency``, ``latency@NAME``, ``macs``, ``params``, ``memory-access`` or ``peak-memory``. ``budget``
    limits the architectures, ``points`` is the largest number of points in a space that cannot be enumerated, and
    ``plot`` a .png or .svg file to draw.

    Raises HwnasError when the run is not finished, for an unknown metric, and for a budget that cannot be met.
    """
    from hwnas.runs.derive import derive_pareto as find

    picture = None if plot is None else Path(plot)
    return find(Path(run), metric, budget, points, picture, progress or Progress(quiet=True))


def derive_accuracy(
    run: Path | str,
    tables: Tables | None = None,
    *,
    budget: str = "",
    points: int | None = None,
    plot: Path | str | None = None,
    progress: Progress | None = None,
) -> list[AccuracyFront]:
    """Return the front of predicted accuracy against latency for every table, cheapest first.

    Accuracy is predicted from the finalists of the run; nothing is trained. ``tables`` of any devices are for the run's
    target network, by default the run's own. ``budget``, ``points`` and ``plot`` are those of ``derive_pareto``.

    Raises HwnasError when the run is not finished or has no finalists, for a table that lacks the network, and for a
    budget that cannot be met.
    """
    from hwnas.runs.accuracy_front import derive_accuracy as find

    opened, picture = {} if tables is None else read_tables(tables), None if plot is None else Path(plot)
    return find(Path(run), opened, budget, points, picture, progress or Progress(quiet=True))
