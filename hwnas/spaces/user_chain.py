"""Chains that users define in a YAML file (docs/how-to/own-space.md): stem, candidates, stages, head, settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.imports import IMPORT_PATH
from hwnas.spaces.cell import NONE, SKIP
from hwnas.spaces.chain import (
    CLASSIFIERS,
    HEAD,
    MAX_WIDTHS,
    ChainLayout,
    ChainStage,
    FixedLayer,
    LayerCandidate,
    require_mobile,
)
from hwnas.spaces.mobile_blocks import MAX_EXPANSION, MAX_GROUPS, MAX_KERNEL, Activation, Gate
from hwnas.spaces.mobile_chains import chain_space
from hwnas.spaces.sized_space import SizedSpace
from hwnas.spaces.space import SearchSpace, Setting, SpaceOrigin
from hwnas.spaces.user_space import (
    MAX_EDGES,
    SPACE_NAME,
    Definition,
    Name,
    Size,
    imported_operation,
    is_taken,
    registered_candidate,
)

MAX_CHANNELS = 4096
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Stride = Annotated[int, Field(ge=1, le=2)]


def one_or_several(value: Any) -> int | list[int]:
    """Return the number of channels of a stage, or the list of those of which one is chosen, if it is valid."""
    given = value if isinstance(value, list) else [value]
    if not all(type(number) is int and 1 <= number <= MAX_CHANNELS for number in given):
        raise ValueError(f"give a number from 1 to {MAX_CHANNELS}, or a list of such numbers to choose from")
    if isinstance(value, list) and (value != sorted(set(value)) or not 2 <= len(value) <= MAX_WIDTHS):
        raise ValueError(f"list 2 to {MAX_WIDTHS} different widths, the narrowest first")
    return given if isinstance(value, list) else given[0]


class FixedLayerDefinition(Definition):
    """A layer of the stem or the head (hwnas.spaces.chain.FixedLayer)."""

    op: Annotated[str, Field(max_length=40)]
    channels: Channels | None = None
    stride: Stride = 1

    @model_validator(mode="after")
    def _known(self) -> FixedLayerDefinition:
        try:
            require_mobile(self.op)
        except HwnasError as error:
            raise ValueError(f"{error.problem}; {error.fix}") from None
        return self


class CandidateDefinition(Definition):
    """A candidate of layers: an inverted residual, a registered operation, or one of the user's by import path."""

    kernel: Annotated[int, Field(ge=1, le=MAX_KERNEL)] | None = None
    expand: Annotated[float, Field(gt=0, le=MAX_EXPANSION)] | Annotated[int, Field(ge=1, le=MAX_EXPANSION)] = 1
    groups: Annotated[int, Field(ge=1, le=MAX_GROUPS)] = 1
    expands_always: bool = False
    activation: Activation | None = None
    gate: Gate | None = None
    op: Annotated[str, Field(max_length=40)] | None = None
    operation: Annotated[str, Field(pattern=f"^{IMPORT_PATH.pattern}$", max_length=200)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> CandidateDefinition:
        if sum(given is not None for given in (self.kernel, self.op, self.operation)) != 1:
            raise ValueError("give a kernel (of an inverted residual), or an op, or an operation: package.module:NAME")
        if self.kernel is not None and self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even; it must be odd")
        if self.op is not None and registered_candidate(self.op) is None:
            raise ValueError(f"{self.op} is not a registered operation")
        return self

    @property
    def candidate(self) -> LayerCandidate:
        if self.kernel is None:
            return LayerCandidate(op=imported_operation(self.operation).op if self.operation else self.op)
        return LayerCandidate(self.kernel, self.expand, self.groups, self.expands_always, self.activation, self.gate)


class ChainStageDefinition(Definition):
    """A stage of layers (hwnas.spaces.chain.ChainStage)."""

    channels: Annotated[int | list[int], PlainValidator(one_or_several)]
    layers: Annotated[int, Field(ge=1, le=MAX_EDGES)]
    stride: Stride = 1
    activation: Activation = "relu"
    gate: Gate = ""
    candidates: list[str] | None = Field(None, min_length=1)
    skips: Literal["none", "any", "last"] = "none"
    least: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _sound(self) -> ChainStageDefinition:
        if self.least > 1 and self.skips != "last":
            raise ValueError("least is the number of layers that stay where the last ones are skipped: add skips: last")
        if self.least > self.layers:
            raise ValueError(f"least {self.least} is more than its {self.layers} layers")
        return self

    @property
    def stage(self) -> ChainStage:
        names = None if self.candidates is None else tuple(self.candidates)
        channels = self.channels if isinstance(self.channels, int) else tuple(self.channels)
        return ChainStage(channels, self.layers, self.stride, self.activation, self.gate, names, self.skips, self.least)


class ChainSettingDefinition(Definition):
    """A named size. ``channels`` are those of the stem, by default the definition's."""

    channels: Annotated[int, Field(ge=2, le=1024)] | None = None
    image_channels: Annotated[int, Field(ge=1, le=64)] = 3
    height: Size = 32
    width: Size = 32
    classes: Annotated[int, Field(ge=1, le=100_000)] = 10
    stem: Literal["cifar", "imagenet"] = "imagenet"


class ChainDefinition(Definition):
    """A YAML file of a chain."""

    name: Annotated[str, Field(pattern=f"^{SPACE_NAME}$")]
    stem: list[FixedLayerDefinition] = Field(min_length=1, max_length=8)
    candidates: dict[Name, CandidateDefinition] = Field(min_length=1, max_length=24)
    stages: list[ChainStageDefinition] = Field(min_length=1, max_length=16)
    head: list[FixedLayerDefinition] = Field(min_length=1, max_length=8)
    projection: Annotated[str, Field(max_length=40)] | None = None
    settings: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")], ChainSettingDefinition] = Field(
        min_length=1, max_length=20
    )
    search_setting: str | None = None
    macs_convention: Literal["fvcore", "conv_linear"] = "fvcore"

    @model_validator(mode="after")
    def _sound(self) -> ChainDefinition:
        described = [candidate.model_dump() for candidate in self.candidates.values()]
        widths = {width for described in self.stages for width in described.stage.widths}
        for number, name in enumerate(self.candidates):
            if name in (NONE, SKIP, "skip", *widths, *([HEAD] if widths else [])) or is_taken(name):
                raise ValueError(f"candidates.{name}: the name is taken, use another")
            if described[number] in described[:number]:
                other = list(self.candidates)[described.index(described[number])]
                raise ValueError(f"candidates: {name} and {other} are the same")
        for number, stage in enumerate(self.stages):
            if unknown := set(stage.candidates or ()) - set(self.candidates):
                raise ValueError(f"stages.{number}.candidates: there is no candidate {min(unknown)}")
        if sum(stage.layers for stage in self.stages) > MAX_EDGES:
            raise ValueError(f"stages: more than {MAX_EDGES} layers")
        if self.stem[0].channels is None:
            raise ValueError("stem.0.channels: give the number of channels")
        ends = [layer.op in CLASSIFIERS for layer in (*self.stem, *self.head)]
        if not ends[-1] or any(ends[:-1]):
            raise ValueError(f"head: it ends with one of {', '.join(CLASSIFIERS)}, and no other layer is one")
        if self.projection is not None:
            FixedLayerDefinition(op=self.projection)
        if self.search_setting not in (None, *self.settings):
            raise ValueError(f"search_setting: {self.search_setting} is not one of {', '.join(self.settings)}")
        return self

    def space(self, spec: str, text: str) -> SearchSpace:
        """Return the space. ``spec`` is the file and ``text`` its content.

        Raises HwnasError for too small images, and for layers whose sizes do not fit together.
        """
        layout = ChainLayout(
            stem=tuple(FixedLayer(**layer.model_dump()) for layer in self.stem),
            candidates={name: described.candidate for name, described in self.candidates.items()},
            stages=tuple(described.stage for described in self.stages),
            head=tuple(FixedLayer(**layer.model_dump()) for layer in self.head),
            projection=self.projection,
        )
        usual = self.search_setting or next(iter(self.settings))
        ops = [
            candidate.op for candidate in layout.candidates.values()
        ]  # the user's own carry the hash of their source
        meant = [self.model_dump(exclude={"settings", "search_setting"}), ops]
        settings = {name: self._setting(sizes, layout) for name, sizes in self.settings.items()}
        origin = SpaceOrigin(spec, text, sha256_of(meant))
        space = chain_space(self.name, layout, settings, usual, usual, None, self.macs_convention, origin)
        for name, setting in settings.items():
            try:
                _ = SizedSpace(space, setting).network  # raises where the image is too small
            except HwnasError as error:
                fix = error.fix or "change the definition"
                raise HwnasError(f"space {spec}: settings.{name}: {error.problem}", fix) from None
        return space

    def _setting(self, sizes: ChainSettingDefinition, layout: ChainLayout) -> Setting:
        given = sizes.model_dump() | {"channels": sizes.channels or self.stem[0].channels}
        return Setting(depth=layout.num_layers, **given)
