"""Decide what a recipe leaves to the run (``auto``). A run that has begun keeps what it began with.

Compiled kernels that a machine cannot use are replaced by plain torch, as the log says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.compute.device import choose_device, describe
from hwnas.compute.precision import AS_REQUESTED, choose_precision
from hwnas.errors import HwnasError
from hwnas.finalists import price
from hwnas.finalists.of_search import finalists_sized
from hwnas.networks.fast.kernels import choose_kernels
from hwnas.recipe import Finalists, Recipe
from hwnas.runs.folder import MANIFEST
from hwnas.runs.manifest_schema import SearchRecipe
from hwnas.runs.records import read_manifest
from hwnas.runs.request import SearchRequest
from hwnas.runs.two_networks import TwoNetworks
from hwnas.search.axes import required_precision
from hwnas.search.choices import build
from hwnas.search.kind_of_data import require_settings
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.supernet_state import mixed_channels
from hwnas.spaces import SizedSpace
from hwnas.text import about
from hwnas.training.processes import Processes
from hwnas.validation import validate

AUTO = "auto"
DEFAULT = Finalists()  # where they are cheap
ADD = f"--finalists {DEFAULT.trainings}"
NAMES = {"torch": "plain torch", "compiled": "compiled kernels"}


@dataclass(frozen=True)
class Settled:
    """A request whose recipe leaves nothing open.

    ``computed`` is what computes the supernet, with reasons, for the manifest; ``lines`` say it to the user, the last
    one about finalists.
    """

    request: SearchRequest
    computed: dict[str, str]
    lines: list[str]


def settle_request(
    request: SearchRequest, networks: TwoNetworks, objectives: Sequence[Objective], folder: Path, processes: Processes
) -> Settled:
    """Decide everything that a request leaves to the run, or take it from the run that ``folder`` holds.

    All processes decide as rank 0 does. Raises HwnasError for baselines without finalists.
    """
    begun = _begun_recipe(folder, processes)
    recipe, computed = settle_computing(request.recipe, networks.search_sized, processes.is_single, begun)
    recipe, line = settle_finalists(recipe, networks, objectives, request.baselines, begun)
    return Settled(replace(request, recipe=recipe), computed, [describe_computing(computed), line])


def _begun_recipe(folder: Path, processes: Processes) -> SearchRecipe | None:
    """Return the recipe of the run that rank 0's ``folder`` holds; None where it holds none."""
    content = None
    if processes.is_rank_zero and (folder / MANIFEST).exists():
        content = read_manifest(folder, f"remove folder {folder}").recipe.to_json()
    content = processes.from_rank_zero(content)
    return None if content is None else SearchRecipe.model_validate(content)


def settle(recipe: Recipe, chosen: Mapping[str, Any], begun: SearchRecipe | None) -> Recipe:
    """Return the recipe with values of ``chosen`` in place of ``auto``, or those with which a run has begun."""
    values = {name: getattr(begun, name) for name in chosen} if begun else chosen
    return recipe.model_copy(update={name: v for name, v in values.items() if getattr(recipe, name) == AUTO})


def settle_computing(
    recipe: Recipe, sized: SizedSpace, is_single: bool, begun: SearchRecipe | None
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with precision and kernels, and what computes the supernet, with reasons, for the manifest.

    ``sized`` is the search network, ``is_single`` whether one process searches.
    """
    device = choose_device(recipe.compute)
    kept = settle(recipe, {"precision": AUTO, "kernels": AUTO}, begun)
    register_builtin()
    asked = required_precision(kept, build("learning", kept.learning))
    precision, why_precision = choose_precision(asked, device)
    if asked != kept.precision:
        why_precision = "the method compares close weights, which bfloat16 rounds alike"
    partial = recipe.stages[0].partial_channels if recipe.stages else recipe.partial_channels
    channels = mixed_channels(sized, partial)
    kernels, why_kernels = choose_kernels(kept.kernels, precision, channels, device, is_single)
    computed = {
        "on": describe(device),
        "precision": precision,
        "precision_reason": _reason(recipe.precision, why_precision),
        "kernels": NAMES[kernels],
        "kernels_reason": _reason(recipe.kernels, why_kernels),
    }
    return (kept if begun else settle(kept, {"precision": precision, "kernels": kernels}, None)), computed


def describe_computing(computed: Mapping[str, str]) -> str:
    """Return a line on what computes the supernet."""
    precision = f"{computed['precision']} ({computed['precision_reason']})"
    kernels = f"{computed['kernels']} ({computed['kernels_reason']})"
    return f"{computed['on']} computes the supernet in {precision} with {kernels}"


def settle_finalists(
    recipe: Recipe,
    networks: TwoNetworks,
    objectives: Sequence[Objective],
    baselines: bool | None,
    begun: SearchRecipe | None,
) -> tuple[Recipe, str]:
    """Return the recipe with finalists or without, and a line on why and on what they cost.

    ``baselines`` as in hwnas.recipe.Finalists. Raises HwnasError for baselines without finalists.
    """
    words = networks.search_sized.space.is_recurrent
    require_settings(recipe, words)
    if words:
        recipe = recipe.model_copy(update={"finalists": None})
        how, why = AS_REQUESTED, "only networks of images can have them"
    elif recipe.finalists == AUTO:
        seconds = _price(DEFAULT, recipe, networks, objectives)
        chosen = _finalists_of(begun) if begun else DEFAULT if seconds <= price.CHEAP_S else None
        recipe = recipe.model_copy(update={"finalists": chosen})
        why = "this run began without them" if begun else _too_dear(seconds)
        how = "as this run began" if begun else "by default; --finalists 0 trains none"
    else:
        how = why = AS_REQUESTED
    found = recipe.finalists
    if not isinstance(found, Finalists):
        if baselines:
            fix = "leave them out" if networks.search_sized.space.is_recurrent else f"add {ADD}"
            raise HwnasError("baselines are trained as finalists are, and the search has none", fix)
        return recipe, f"no finalists: {why}"
    if baselines is not None:
        found = found.model_copy(update={"baselines": baselines})
    time = about(_price(found, recipe, networks, objectives))
    line = f"{found.trainings} finalists, about {time} of one processor core ({how})"
    return recipe.model_copy(update={"finalists": found}), line


def _finalists_of(begun: SearchRecipe) -> Finalists | None:
    """Return the finalists of a run that has begun. Raises HwnasError where its manifest is damaged."""
    if begun.finalists is None:
        return None
    return validate(Finalists, begun.finalists, f"{MANIFEST}: recipe.finalists", "give another folder with --out")


def _too_dear(seconds: float) -> str:
    time, most = about(seconds), about(price.CHEAP_S)
    return f"they would take about {time} of one processor core, over the {most} of the default; {ADD} asks for them"


def _price(settings: Finalists, recipe: Recipe, networks: TwoNetworks, objectives: Sequence[Objective]) -> float:
    """Return the processor time of finalists, in seconds (hwnas.finalists.price)."""
    sized = finalists_sized(networks.search_sized, networks.target_sized, settings)
    images = price.Images(len(networks.data.train), len(networks.data.validation))
    seconds = price.price(settings, sized, [o.limits for o in objectives], images, recipe.inputs_per_node)
    return seconds + (price.autoencoder_price(recipe.autoencoder, sized.space) if recipe.autoencoder else 0.0)


def _reason(asked: str, why: str) -> str:
    return "as this run began" if (asked, why) == (AUTO, AS_REQUESTED) else why
