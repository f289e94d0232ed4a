"""Searches whose target network is larger than their search network, or has other images."""

from __future__ import annotations

from dataclasses import replace

from hwnas.data import ImageData
from hwnas.recipe import read_recipe
from hwnas.runs.request import SearchRequest, SearchSizes
from hwnas.spaces import Setting, SizedSpace
from hwnas.tables.schema import Correction, LatencyTable
from support.spaces import NB201
from support.tables import make_table
from support.training import no_test, random_images

TARGET = SizedSpace(NB201, Setting(channels=8, depth=2, classes=3))
SMALL_IMAGES = 16


def named_table(sized: SizedSpace, seed: int = 0) -> LatencyTable:
    """Return a made-up table that names the network it was made for, as ``hwnas profile`` does."""
    correction = {sized.key: Correction(offset_ms=0, scale=1, networks=1)}
    return make_table(sized, seed).model_copy(update={"correction": correction})


def images_of(side: int, classes: int) -> ImageData:
    split = random_images(2 * classes, side, classes)
    return ImageData(f"images of {side} and {classes}", tuple(map(str, range(classes))), split, split, no_test)


def request_of(target: SizedSpace, table: LatencyTable | None = None, **changes: object) -> SearchRequest:
    """Return a request of a budget for one device, by default that of a table of the target network."""
    recipe = read_recipe("snas-short", {})
    request = SearchRequest(target, {"phone": table or named_table(target)}, "", ["moderate"], recipe, verify=False)
    return replace(request, **changes)  # type: ignore[arg-type]


def searched_at(channels: int | None = None, depth: int | None = None, setting: str | None = None) -> SearchSizes:
    return SearchSizes(setting, channels, depth)
