"""The two networks of a search: the search network, which is trained, and the target network, which ships.

Every budget, table, preview and derivation is about the target network. The two are equal where the target network is
no larger than the space's search setting and the images of the search fit it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwnas.cost.carried_head import carry_head
from hwnas.cost.model import build_cost_models
from hwnas.data import ImageData
from hwnas.data.random_images import random_images
from hwnas.data.text import random_words
from hwnas.errors import HwnasError
from hwnas.runs.read import fit_to_data
from hwnas.runs.request import SearchRequest, SearchSizes
from hwnas.runs.sizes import describe_images, describe_sizes
from hwnas.spaces import Setting, SizedSpace
from hwnas.tables.network_key import networks_of, profile_command
from hwnas.tables.schema import LatencyTable


@dataclass(frozen=True)
class TwoNetworks:
    """The sizes of both networks, and the images that fit each; ``target_data`` is None where none are known."""

    search_sized: SizedSpace
    target_sized: SizedSpace
    data: ImageData
    target_data: ImageData | None

    @property
    def proxy(self) -> bool:
        """True where the networks that the search trains only stand in for those that ship."""
        return (
            self.search_sized != self.target_sized
            or self.target_data is None
            or self.target_data.fingerprint != self.data.fingerprint
        )

    def describe(self) -> list[str]:
        """Return a line for each network, or none where they are equal."""
        if not self.proxy:
            return []
        kind, target = "text" if self.data.of_words else "images", self.target_data
        return [
            f"target network, which the budgets are about: {self._text(self.target_sized)}; "
            f"{kind}: {target.name if target else 'none given'}",
            f"search network, which is trained now: {self._text(self.search_sized)}; {kind}: {self.data.name}",
        ]

    @staticmethod
    def _text(sized: SizedSpace) -> str:
        return f"{sized.space.name}, {describe_sizes(sized.setting)}"


def choose_networks(request: SearchRequest, data: ImageData, target_data: ImageData | None) -> TwoNetworks:
    """Return the networks of a search for the images of the search and, if given, those of the target network.

    The target network follows ``target_data``; without them it follows ``data`` where the tables hold the network of
    their shape and classes, and otherwise stays that of the tables.

    Raises HwnasError where the tables lack the target network, ``target_data`` do not fit it, ``data`` have another
    shape than was asked for, or the search network has fewer kinds of cell.
    """
    asked = request.search_sizes.images
    if asked and data.of_words:
        raise HwnasError(f"--search-input is the shape of images, and {data.name} is text", "leave it out")
    if asked and asked != data.shape:
        shapes = ["x".join(map(str, shape)) for shape in (data.shape, asked)]
        raise HwnasError(
            f"the images of --data are {shapes[0]}, and --search-input asks for {shapes[1]}",
            "give images of that shape, or leave out --search-input",
        )
    target = _target_network(request, data, target_data)
    search = _search_network(request.search_sizes, target, data)
    _require_same_cells(search, target)
    if target_data is None and fit_to_data(target, data) == target:
        target_data = data
    return TwoNetworks(search, target, data, target_data)


def images_for(sized: SizedSpace, data: ImageData | None) -> ImageData:
    """Return ``data`` or, where there are none, random images of the network's shape and classes, or random words."""
    channels, height, width, classes = sized.setting.images
    if sized.setting.words and data is None:
        return random_words(classes)
    return data or random_images((channels, height, width), classes)


def _target_network(request: SearchRequest, data: ImageData, target_data: ImageData | None) -> SizedSpace:
    asked, tables = request.target_sized, request.tables.values()
    wanted = _with_images(asked, target_data or data, request.fixed_sizes)
    if _hold(tables, wanted):
        if target_data and fit_to_data(wanted, target_data) != wanted:
            raise _unfit(target_data, wanted, "leave out --input and --classes, or give images that fit")
        return wanted
    if _hold(tables, asked):
        if target_data:
            raise _unfit(target_data, asked, f"give images that fit, or a table of theirs: {profile_command(wanted)}")
        return asked
    usual = SizedSpace.named(asked.space).setting
    # A network of the usual images was not asked for by its images: it is missing at those that were given.
    raise _missing(tables, wanted if asked.setting.images == usual.images else asked)


def _with_images(sized: SizedSpace, data: ImageData, fixed: Iterable[str]) -> SizedSpace:
    """Return the space at the data's image shape and classes, except the ``fixed`` fields of its setting."""
    return fit_to_data(sized, data).resized(**{name: getattr(sized.setting, name) for name in fixed})


def _hold(tables: Iterable[LatencyTable], sized: SizedSpace) -> bool:
    """Return whether all tables predict a network, with its head carried over where that is all they lack."""
    try:
        for table in tables:
            build_cost_models(carry_head(table, sized)[0], sized)
    except HwnasError:
        return False
    return True


def _missing(tables: Iterable[LatencyTable], sized: SizedSpace) -> HwnasError:
    """Return the error of a network that a table does not hold."""
    for table in tables:
        try:
            build_cost_models(carry_head(table, sized)[0], sized)
        except HwnasError as error:
            made_for = [n for n in networks_of(table, sized.space) if n.space == sized.space]
            sizes = {(n.setting.channels, n.setting.depth) for n in made_for}
            if not sizes or (sized.setting.channels, sized.setting.depth) in sizes:
                return error
            advice = "to search a smaller network for a table of a larger one, use --search-channels and --search-cells"
            return HwnasError(error.problem, f"{advice}; or {error.fix}")
    raise AssertionError("all tables hold the network")


def _unfit(data: ImageData, sized: SizedSpace, fix: str) -> HwnasError:
    return HwnasError(
        f"the target network takes {describe_images(sized.setting)}, but the images of --target-data {data.name} are "
        f"{describe_images(fit_to_data(sized, data).setting)}",
        fix,
    )


def _search_network(sizes: SearchSizes, target: SizedSpace, data: ImageData) -> SizedSpace:
    """Return the search network: by default the target's sizes, or the space's search setting if that is smaller.

    Its images are those of ``data``. It has the target's stem where these are of the target's shape, because a stem
    for large images leaves nothing of small ones.
    """
    usual = SizedSpace.named(target.space, sizes.setting)
    base = usual
    if sizes.setting is None:
        if _size(target.setting) <= _size(usual.setting):
            base = target
        same_shape = target.setting.images[:3] == data.shape
        base = base.resized(stem=target.setting.stem if same_shape else usual.setting.stem)
    changes = {"channels": sizes.channels, "depth": sizes.depth}
    return fit_to_data(base.resized(**{name: value for name, value in changes.items() if value is not None}), data)


def _size(setting: Setting) -> int:
    return setting.channels * setting.depth


def _require_same_cells(search: SizedSpace, target: SizedSpace) -> None:
    for kind in target.space.cells:
        if target.network.cell_instances(kind) and not search.network.cell_instances(kind):
            raise HwnasError(
                f"the search network ({search.setting.describe()}) has no {kind} cell, which the target network has",
                "search with more cells: --search-cells",
            )
