"""Layers of a user's own backbone: what a declaration says of one, and the operation of each of its choices."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, Strict, model_validator

from hwnas.errors import HwnasError
from hwnas.files import sha256_of, sha256_of_file
from hwnas.spaces.layers import Shape, strided
from hwnas.spaces.operation import Operation, add_operation
from hwnas.spaces.space import Workload
from hwnas.spaces.user_space import Definition, Name, is_taken
from hwnas.text import shorten

if TYPE_CHECKING:
    from torch import nn

    from hwnas.spaces.user_modules import TracedModule

ONLY = "keep"  # the candidate of a layer without options
GIVEN = ("in_channels", "classes", "out_channels")  # parameters of a layer's function that hwnas gives
MOST_CANDIDATES, LONGEST_CANDIDATE = 64, 80

Option = bool | int | float | str
Arguments = Mapping[str, Option]


class LayerDefinition(Definition):
    """One layer of a declaration.

    ``build`` returns its torch module, new in every call, for one value of each of the ``options`` as keyword
    arguments; it also gets the number of channels that the layer reads, and of classes, where it has parameters
    ``in_channels`` and ``classes``. ``depth``: the least and the most times that the layer is there, one after another,
    each with options of its own. ``widths``: numbers of channels of which one is chosen for all these times; ``build``
    gets it as ``out_channels``.
    """

    name: Name
    build: Callable[..., Any]
    widths: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Strict(False)] = Field(default_factory=list)
    options: dict[Name, Annotated[list[Option], Strict(False), Field(min_length=1)]] = Field(default_factory=dict)
    depth: Annotated[tuple[int, int], Strict(False)] = (1, 1)

    @model_validator(mode="after")
    def _sound(self) -> LayerDefinition:
        least, most = self.depth
        if not 0 <= least <= most or most < 1:
            raise ValueError(f"depth {least} to {most}: give the least and the most times, such as (1, 3)")
        if given := set(GIVEN) & set(self.options):
            raise ValueError(f"options: {min(given)} is given by hwnas, use another name")
        if len(set(self.widths)) < len(self.widths) or len(self.widths) == 1:
            raise ValueError("widths: give two or more different numbers of channels")
        if self.widths and least == 0:
            raise ValueError("widths: a layer that decides the number of channels cannot be left out")
        words = [_candidate(choice) for choice in self._choices()]
        if wrong := next((word for word in words if re.fullmatch(r"w\d+", word)), None):
            raise ValueError(f"options: {wrong} is the word of a width; use another name")
        if len(words) > MOST_CANDIDATES:
            raise ValueError(f"options: they have {len(words)} combinations, more than {MOST_CANDIDATES}")
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise ValueError(f"options: two choices are written {twice}; values differ in letters and digits")
        if wrong := next((word for word in words if len(word) > LONGEST_CANDIDATE or is_taken(word)), None):
            raise ValueError(f"options: {shorten(wrong, 40)} is too long or taken by torch modules; use other names")
        return self

    @property
    def candidates(self) -> dict[str, Arguments]:
        """The choices by the words that architectures are written with."""
        return {_candidate(choice): choice for choice in self._choices()}

    def _choices(self) -> list[dict[str, Option]]:
        return [dict(zip(self.options, values, strict=True)) for values in product(*self.options.values())]

    def given(self, in_channels: int, classes: int, out_channels: int | None) -> Arguments:
        """Return those of the arguments in GIVEN that ``build`` has parameters for; and ``out_channels`` if it is
        chosen.
        """
        try:
            known: Iterable[str] = inspect.signature(self.build).parameters
        except ValueError:  # a function in C
            known = ()
        found = {name: value for name, value in (("in_channels", in_channels), ("classes", classes)) if name in known}
        return found if out_channels is None else {**found, "out_channels": out_channels}


def _candidate(choice: Arguments) -> str:
    """Return the word of a choice: ``kernel3_ratio0_5_act_relu`` of a kernel, a ratio and an activation."""
    words = (
        f"{name}_{value}" if isinstance(value, bool | str) else f"{name}{value:.12g}" for name, value in choice.items()
    )
    return re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()).strip("_") or ONLY


@dataclass(frozen=True)
class BuiltLayer:
    """A choice of a layer where it reads a tensor of one shape: its operation in workloads, and what it returns."""

    op: str
    out_shape: tuple[int, ...]
    overwrites_input: bool


@dataclass
class LayerBuilder:
    """Build, trace and register the choices of layers. ``declaration`` is the file that declares them.

    An operation's name has the hash of the files that its module comes from (those of the declaration, of the function
    and of the classes of its modules, but not torch's), of its arguments and shapes: after a change it is another one.
    """

    spec: str
    declaration: Path
    sources: dict[Path, str] = field(default_factory=dict)  # hashes of the files so far
    _built: dict[tuple[object, ...], BuiltLayer] = field(default_factory=dict)

    def __call__(
        self, layer: LayerDefinition, candidate: str, shape: Shape, classes: int, out_channels: int | None = None
    ) -> BuiltLayer:
        """Return a choice of a layer that reads a tensor of ``shape``; ``out_channels`` are chosen, or None.

        Raises HwnasError, which names the layer, where its function or its module fails.
        """
        arguments = {**layer.candidates[candidate], **layer.given(shape[0], classes, out_channels)}
        key = layer.name, candidate, shape, tuple(arguments.items())
        if key not in self._built:
            self._built[key] = self._register(layer, candidate, shape, arguments)
        return self._built[key]

    def _register(self, layer: LayerDefinition, candidate: str, shape: Shape, arguments: Arguments) -> BuiltLayer:
        build = partial(layer.build, **arguments)
        called = f"{layer.name}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
        traced, sources = self._traced(called, build, shape)
        digest = sha256_of([sources, arguments, shape, traced.out_shape])[:8]
        op = "_".join([layer.name, *([] if candidate == ONLY else [candidate]), digest])

        def module(workload: Workload, affine: bool) -> nn.Module:
            from hwnas.spaces.user_modules import without_factors

            if workload.in_channels != shape[0]:
                raise HwnasError(
                    f"layer {layer.name} of {self.spec} cannot be built with a part of its channels",
                    "use a method without partial channels, such as --method snas",
                )
            made: nn.Module = build()
            return made if affine else without_factors(made)

        add_operation(
            Operation(
                name=op,
                module=module,
                layers=lambda trace, workload: traced.append_to(trace),
                ends_with=traced.ends_with,
                chainable=traced.out_shape == shape,
            )
        )
        return BuiltLayer(op, traced.out_shape, traced.overwrites_input)

    def _traced(self, called: str, build: Callable[[], Any], shape: Shape) -> tuple[TracedModule, list[str]]:
        from hwnas.spaces.user_modules import UnusableModuleError, build_on_meta, trace_module

        module = None
        try:
            module = build_on_meta(build)
            traced = trace_module(module, shape)
        except UnusableModuleError as error:
            raise self.error(called, str(error), "change what the function returns") from None
        except Exception as error:
            if module is None:
                raise self.error(called, f"it fails: {_reason(error)}", "fix the function") from error
            fix = "its sizes must fit the layer before, and its forward may not depend on the values of tensors"
            raise self.error(
                called, f"its module fails on an input of {written(shape)}: {_reason(error)}", fix
            ) from error
        return traced, self._hashes(called, build, module)

    def _hashes(self, called: str, build: Callable[[], Any], module: nn.Module) -> list[str]:
        """Return the hashes of the files that a module comes from, sorted."""
        function = build
        while isinstance(function, partial):
            function = function.func
        own = source_file(function)
        if own is None:
            raise self.error(called, "no file holds its source", "define the function in a .py file")
        files = {self.declaration, own, *(source_file(type(part)) for part in module.modules())}
        mine = [file for file in files if file and not _is_torchs(file)]
        self.sources |= {file: sha256_of_file(file) for file in mine if file not in self.sources}
        return sorted(self.sources[file] for file in mine)

    def common_shape(self, layer: str, shape: Shape, built: Mapping[str, BuiltLayer]) -> Shape:
        """Return the shape of the output of a layer's candidates. Raises HwnasError where they have several."""
        (first, one), *others = built.items()
        for word, other in others:
            if other.out_shape != one.out_shape:
                raise self.error(
                    layer,
                    f"{first} returns {written(one.out_shape)} and {word} {written(other.out_shape)} "
                    f"for an input of {written(shape)}",
                    "give all choices one output shape, with a padding of kernel // 2 for example",
                )
        return self.feature_map(layer, one)

    def feature_map(self, layer: str, built: BuiltLayer) -> Shape:
        """Return the channels, height and width of a layer's output. Raises HwnasError for anything else."""
        if len(built.out_shape) != 3:
            raise self.error(
                layer,
                f"its output is {written(built.out_shape)} for each image, not channels, height and width",
                "flatten in the last layer only",
            )
        channels, height, width = built.out_shape
        return channels, height, width

    def require_replaceable(
        self, layer: str, shape: Shape, after: Shape, choices: Mapping[str, BuiltLayer], skips: bool
    ) -> None:
        """Raise HwnasError where one of several ``choices`` changes the input of all, or where a layer that can be left
        out changes the shape.
        """
        if skips and after != shape:
            raise self.error(
                layer,
                f"it can be left out, but makes {written(after)} of {written(shape)}",
                "declare a layer that changes the shape on its own, without a depth",
            )
        if overwrites := [word for word, found in choices.items() if found.overwrites_input]:
            raise self.error(
                layer,
                f"{overwrites[0]} changes its input in place, which the other choices read, too",
                "use inplace=False in what reads the input first",
            )

    def whole_stride(self, layer: str, shape: Shape, after: Shape) -> int:
        """Return the stride of a layer between those with a choice. Raises HwnasError where it is no whole number."""
        stride = stride_of(shape, after)
        if stride is None:
            raise self.error(
                layer,
                f"it makes {written(after)} of {written(shape)}; a layer between those with a choice keeps height "
                "and width or divides both by one whole number, rounding up",
                "pad its convolutions by kernel // 2, or move it before or after the layers with a choice",
            )
        return stride

    def error(self, layer: str, problem: str, fix: str) -> HwnasError:
        """Return an error that names a layer."""
        return HwnasError(f"space {self.spec}: {layer}: {problem}", fix)


def written(shape: tuple[int, ...]) -> str:
    """Return a shape as text: 16x32x32."""
    return "x".join(map(str, shape))


def stride_of(before: Shape, after: Shape) -> int | None:
    """Return the stride that makes the height and width ``after`` of those ``before``, or None."""
    return next((s for s in range(1, max(before[1:]) + 1) if strided(*before[1:], s) == after[1:]), None)


def source_file(code: Any) -> Path | None:
    """Return the file that defines a function, a class or the class of an object; None where there is none."""
    code = inspect.unwrap(code) if callable(code) else code
    for found in (code, type(code)):
        try:
            file = inspect.getsourcefile(found)
        except TypeError:  # neither a function nor a class, or one in C
            continue
        if file and Path(file).is_file():
            return Path(file)
    return None


def _is_torchs(file: Path) -> bool:
    """Return whether a file is torch's own; tables state no version of torch for built-in operations either."""
    import torch

    return Path(torch.__file__).parent in file.parents


def _reason(error: Exception) -> str:
    """Return an exception in one line."""
    first = next(iter(str(error).splitlines()), "")
    return shorten(f"{type(error).__name__}: {first}", 240)
