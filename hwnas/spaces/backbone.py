"""A user's own torch network as a space: ``--space python:my_module:net`` (docs/how-to/wrap-a-backbone.md).

``net`` is a dictionary, so that the user's module needs nothing of hwnas:

    net = {
        "name": "my_net", "image": (3, 32, 32), "classes": 10,
        "layers": [
            {"name": "stem", "build": stem},
            {"name": "stage1", "build": block, "options": {"kernel": [3, 5], "hidden": [64, 96]}, "depth": (1, 3)},
            {"name": "stage2", "build": block, "widths": [48, 64]},
            {"name": "head", "build": head},
        ],
        "assemble": MyNet,
    }

A layer is what its function returns for one choice of its options. It becomes an edge of a chain, and each choice a
candidate with an operation of its own, so that costs add up as in any chain.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.imports import import_object
from hwnas.spaces.backbone_layers import LayerBuilder, LayerDefinition
from hwnas.spaces.backbone_layout import BackboneLayout, BackboneNotation
from hwnas.spaces.chain import KIND
from hwnas.spaces.sized_space import SizedSpace
from hwnas.spaces.space import SearchSpace, Setting, SpaceOrigin
from hwnas.spaces.user_space import SPACE_NAME, Definition, Size

PREFIX = "python:"
HOW = "docs/how-to/wrap-a-backbone.md has an example"
SETTING = "declared"  # the name of the sizes of the declaration


class BackboneDefinition(Definition):
    """The dictionary that declares a backbone. ``image`` is channels, height, width; other images fit if the layers'
    functions do.
    """

    name: Annotated[str, Field(pattern=f"^{SPACE_NAME}$")]
    image: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], Size, Size], Strict(False)]
    classes: Annotated[int, Field(ge=2, le=100_000)]
    layers: Annotated[list[LayerDefinition], Strict(False), Field(min_length=2)]
    assemble: Callable[..., Any] | None = None
    macs_convention: Literal["fvcore", "conv_linear"] = "fvcore"

    @model_validator(mode="after")
    def _sound(self) -> BackboneDefinition:
        names = [layer.name for layer in self.layers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"layers: {twice} is there twice")
        return self


@dataclass(frozen=True)
class BackboneSpace(SearchSpace):
    """A backbone as a space. ``layout`` are its layers; ``builtin`` are names that it cannot have."""

    layout: BackboneLayout = field(kw_only=True)
    builtin: tuple[str, ...] = field(kw_only=True)

    def __reduce__(self) -> tuple[Callable[..., BackboneSpace], tuple[str, tuple[str, ...]]]:
        """Pickle by the import path: the functions that it holds cannot be pickled."""
        return import_backbone, (self.spec, self.builtin)


@cache
def import_backbone(spec: str, builtin: tuple[str, ...]) -> BackboneSpace:
    """Import the declaration ``python:package.module:NAME`` and return its space, every layer built and traced once.

    Raises HwnasError when it is malformed, has one of the names ``builtin``, or a layer fails or does not fit.
    """
    from hwnas.compute.torchvision_cpu import declare_operators

    declare_operators()  # the module may import torchvision
    path = spec.removeprefix(PREFIX)
    found = import_object(path, "space")
    if not isinstance(found, dict):
        raise HwnasError(f"space {spec} is of type {type(found).__name__}, not a dictionary", HOW)
    try:
        definition = BackboneDefinition.model_validate(found)
    except ValidationError as error:
        raise HwnasError(f"space {spec}: {_first_problem(error)}", HOW) from None
    if definition.name in builtin:
        raise HwnasError(f"space {spec}: name: {definition.name} is a built-in space", "use another name")
    return _space(spec, definition, Path(str(sys.modules[path.partition(":")[0]].__file__)), builtin)


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step)[:40] for step in first["loc"][:4])
    message = first["msg"].removeprefix("Value error, ")[:300]
    return f"{where}: {message}" if where else message


def _space(spec: str, definition: BackboneDefinition, file: Path, builtin: tuple[str, ...]) -> BackboneSpace:
    """Return the space of a definition in ``file``."""
    channels, height, width = definition.image
    depth = sum(layer.depth[1] for layer in definition.layers)
    builder, first = LayerBuilder(spec, file), definition.layers[0]
    if first.widths:
        raise HwnasError(f"space {spec}: {first.name}: the first layer has widths to choose from", "give it one width")
    stem = builder(first, next(iter(first.candidates)), definition.image, definition.classes)
    declared = Setting(stem.out_shape[0], depth, channels, height, width, definition.classes)
    layout = BackboneLayout(tuple(definition.layers), definition.assemble, declared, builder)
    notation = BackboneNotation(definition.name, layout.edges)
    _ = layout.network(declared)  # every layer is built, and its files are known
    choices = [(layer.name, layer.options, layer.depth, layer.widths) for layer in definition.layers]
    meant = [choices, sorted(builder.sources.values()), definition.macs_convention]
    space = BackboneSpace(
        name=definition.name,
        operations=layout.operations,
        cells={KIND: layout.cell},
        settings={SETTING: declared},
        search_setting=SETTING,
        published_setting=lambda text: SETTING,
        macs_convention=definition.macs_convention,
        parse_cells=notation.parse,
        format_cells=notation.format,
        build_network=layout.network,
        published={},
        origin=SpaceOrigin(spec, None, sha256_of(meant)),
        layout=layout,
        builtin=builtin,
    )
    _ = SizedSpace.named(space).network  # raises where an image is too small
    return space
