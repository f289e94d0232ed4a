"""Recipes: the settings of a search, as YAML in ``configs/search``, and the reader of all recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hwnas.errors import HwnasError
from hwnas.files import decode_text, shipped
from hwnas.validation import first_problem


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hashed(Strict):
    """Settings whose content names a run or a training by its hash.

    ``newer`` fields were added later. Their content lacks those that are None, so that older runs keep their hash.
    """

    newer: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_newer(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if value is not None or name not in self.newer}


Settings = TypeVar("Settings", bound=Strict)
CHAIN = "chain"  # the folder of the recipes of all chains of layers
TEXT_SPACES = ("recurrent", "recurrent-darts")
Compute = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
Kernels = Literal["auto", "torch", "compiled"]


class Optimizer(Strict):
    """SGD or Adam, with a cosine learning rate schedule from ``lr`` to ``lr_end`` over the epochs."""

    name: Literal["sgd", "adam"]
    lr: FiniteFloat = Field(gt=0)
    lr_end: FiniteFloat = Field(ge=0)
    momentum: FiniteFloat = 0.9
    nesterov: bool = False
    betas: tuple[FiniteFloat, FiniteFloat] = (0.5, 0.999)
    eps: FiniteFloat = Field(default=1e-8, gt=0)
    weight_decay: FiniteFloat = Field(default=0.0, ge=0)
    clip_norm: FiniteFloat = Field(default=5.0, gt=0)


class Temperature(Strict):
    """Temperature of the concrete distribution, linear from the first epoch to the last."""

    start: FiniteFloat = Field(gt=0)
    end: FiniteFloat = Field(gt=0)


class Penalty(Strict):
    """Cost term of the loss, with g = E[C]/B - 1 for every limited metric.

    Mode ``dual`` finds one lambda per limit by dual ascent on the augmented Lagrangian (Hestenes 1969; Platt & Barr,
    NIPS 1987). The gradient of the loss with respect to g is max(0, lambda + damping * g), and lambda <- max(0, lambda
    + total_rate / n * min(g, 0.1)) at each of a target's n steps after ``warm_up`` (a share of the epochs; the damping
    is off during it). Dividing by n lets lambda rise equally far in short searches and in searches whose targets
    take turns. Without damping E[C] oscillates around the budget. Mode ``fixed`` keeps lambda at ``weight``, as in the
    papers.

    ``form`` is the term that a fixed lambda multiplies: ``relative`` is g; ``log`` and ``linear`` are the SNAS paper's
    penalty on ``resources`` (hwnas.search.resources), which needs no budget: the budget then binds the derivation only.
    ``costs_of`` selects the resources of the batch's sample or of the probabilities.
    """

    mode: Literal["dual", "fixed"]
    total_rate: FiniteFloat = Field(default=0.0, ge=0)
    damping: FiniteFloat = Field(default=0.0, ge=0)
    warm_up: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    weight: FiniteFloat = Field(default=0.0, ge=0)
    form: Literal["relative", "log", "linear"] = "relative"
    resources: tuple[Literal["params", "macs", "memory_access_bytes"], ...] = ()
    costs_of: Literal["probabilities", "sample"] = "probabilities"

    @model_validator(mode="after")
    def _fits(self) -> Penalty:
        if self.form == "relative" and (self.resources or self.costs_of == "sample"):
            raise ValueError("resources and costs_of need form log or linear")
        if self.form != "relative" and self.mode != "fixed":
            raise ValueError(f"form {self.form} needs mode fixed")
        if self.form != "relative" and not self.resources:
            raise ValueError(f"form {self.form} needs resources, of params, macs and memory_access_bytes")
        if len(set(self.resources)) < len(self.resources):
            raise ValueError("resources contains a duplicate")
        return self


class ChildTraining(Strict):
    """Training of the derived child from the supernet's weights. ``epochs`` 0 leaves the weights unchanged."""

    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=2)
    optimizer: Optimizer


class Finalists(Strict):
    """Short trainings of some architectures within each budget, by which one of them is chosen (hwnas.finalists).

    Every target proposes ``trainings`` architectures in ``rounds``, out of ``candidates`` random ones and those that
    the method and counts prefer. Each is trained for ``epochs``; every target's best ``last`` are trained for
    ``last_epochs`` more. ``depth`` is the number of cells of their networks; None for that of the target network: in a
    shallow network, cells of many ``skip_connect`` train well that fail in a deep one. ``augment`` as in
    hwnas.training.recipe: so few epochs learn more from images that are not shifted. The learning rate falls to that
    of the end with every step. Weights start near the identity (hwnas.networks.near_identity).

    ``baselines``: whether networks that need no search are trained as long, for comparison (hwnas.finalists.baselines).
    By default ``hwnas search`` does where they take at most half as many epochs as the finalists; a benchmark, which
    compares with baselines by published accuracies, does not.
    """

    trainings: int = Field(default=12, ge=2)
    rounds: int = Field(default=3, ge=1)
    candidates: int = Field(default=100, ge=2)
    last: int = Field(default=3, ge=1)
    epochs: int = Field(default=2, ge=1)
    last_epochs: int = Field(default=4, ge=1)
    depth: int | None = Field(default=None, ge=1)
    baselines: bool | None = None
    batch_size: int = Field(default=64, ge=2)
    augment: Literal["shift-flip", "flip"] = "flip"
    optimizer: Optimizer = Optimizer(name="sgd", lr=0.1, lr_end=0.0, nesterov=True, weight_decay=5e-4)

    @property
    def trainings_of_target(self) -> int:
        """The number of architectures that a target trains: every round has equally many."""
        return -(-self.trainings // self.rounds) * self.rounds

    @property
    def epochs_of_target(self) -> int:
        """The epochs of all trainings of a target."""
        return self.trainings_of_target * self.epochs + min(self.last, self.trainings_of_target) * self.last_epochs


class Autoencoder(Strict):
    """A graph autoencoder of a space's cells (hwnas.latent), in whose latent space architectures are proposed.

    ``latent``: dimensions of the latent space; ``width``: features of a node; ``rounds`` of messages in the encoder;
    ``kl``: weight of the Kullback-Leibler divergence. It learns for ``epochs`` from ``graphs`` architectures each, or
    as many as the space has. The defaults are for a minute of a processor core in NAS-Bench-201; the paper has width
    250, 300 epochs and Adam's learning rate at 1e-4.
    """

    latent: int = Field(default=56, ge=1)
    width: int = Field(default=64, ge=1)
    rounds: int = Field(default=2, ge=1)
    kl: FiniteFloat = Field(default=0.005, ge=0)
    graphs: int = Field(default=20_000, ge=2)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Optimizer = Optimizer(name="adam", lr=3e-3, lr_end=0.0, betas=(0.9, 0.999))


class Choice(Strict):
    """A named choice with its options: in YAML ``dirichlet`` or ``{name: reinforce, samples: 20}``."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "options" not in value:
            return {"name": value.get("name"), "options": {k: v for k, v in value.items() if k != "name"}}
        return value


class Stage(Strict):
    """One stage of a progressive search.

    ``share`` is its share of the epochs, 1/``partial_channels`` the share of the channels in the mixture, and
    ``operations`` the number of operations left on every edge.
    """

    share: FiniteFloat = Field(gt=0, le=1)
    partial_channels: int = Field(ge=1)
    operations: int = Field(ge=1)


class Recipe(Hashed):
    """All settings of a search besides space, data, table and budgets.

    ``method`` is the name of the method's page; its registered choices (hwnas.search.choices) define the search.

    ``logits_share``: share of the training images that train the logits; the others train the weights. With 0 all
    images train both. ``logits_warm_up``: share of every stage's epochs, at its start, in which only the weights are
    trained: operations with untrained weights score no better than those without weights, and the search would
    collapse to ``skip_connect``. ``most_skips``: when this share of a target's derived edges is ``skip_connect``, its
    logits return to their values of the epoch before and stop. ``judged_with``: batch-norm statistics for scoring
    derived networks, of each batch or the supernet's running ones.

    ``shared_blocks``: in a chain, the kernels and expansions of a layer are slices of one block, with ``transformed``
    smaller kernels through learnt maps (hwnas.networks.shared_blocks); None: every candidate has weights of its own.
    ``pretrained``: in a chain, the file of weights that the supernet starts from (hwnas.networks.pretrained_supernet);
    its batch norms then have learnable scales and shifts.

    ``drop_path`` is for images: the share of the edges that carry nothing for an image of the weights' batches.
    ``dropout`` is for words alone: the share of the channels of embeddings and states that such a batch drops
    (hwnas.networks.dropout); None and 0 drop none.

    ``compute``: device of the supernet (hwnas.compute.device). ``precision``: numeric precision of its training
    (hwnas.compute.precision). ``kernels``: implementation of its cells (hwnas.networks.fast.kernels); plain torch
    replaces compiled kernels where these cannot be used. A run records what ``auto`` has chosen (hwnas.runs.settle).

    ``finalists``: short trainings by which the final architecture is chosen; with None ``selection`` chooses it. With
    ``auto`` a run has the default ones where they are cheap (hwnas.finalists.price), and a benchmark has none.

    ``autoencoder``: with one, the finalists of later rounds are proposed by a Gaussian process in its latent space
    (hwnas.latent), and so is what ``selection: latent`` scores; with None an accuracy model of edges proposes the
    finalists.
    """

    newer: ClassVar[tuple[str, ...]] = ("finalists", "shared_blocks", "pretrained", "autoencoder", "dropout")

    method: str
    distribution: Choice = Choice(name="concrete")
    runs: Choice = Choice(name="all")
    learning: Choice = Choice(name="same_batch")
    regulariser: Choice | None = None
    selection: Choice = Choice(name="probable")
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seed: int = Field(default=0, ge=0)
    weights: Optimizer
    logits: Optimizer
    logits_mean: FiniteFloat = 1.0
    logits_std: FiniteFloat = Field(default=0.01, ge=0)
    logits_share: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    logits_warm_up: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    without: tuple[str, ...] = ()
    partial_channels: int = Field(default=1, ge=1)
    shared_features: bool = False
    shared_blocks: Literal["slices", "transformed"] | None = None
    pretrained: str | None = None
    stages: tuple[Stage, ...] = ()
    temperature: Temperature = Temperature(start=1.0, end=1.0)
    drop_path: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    dropout: FiniteFloat | None = Field(default=None, ge=0, lt=1)
    penalty: Penalty
    inputs_per_node: int | None = Field(default=None, ge=1)
    most_skips: FiniteFloat | None = Field(default=None, gt=0, le=1)
    judged_with: Literal["batch", "running"] = "batch"
    compute: Compute = "auto"
    precision: Precision = "auto"
    kernels: Kernels = "auto"
    child: ChildTraining
    finalists: Finalists | Literal["auto"] | None = "auto"
    autoencoder: Autoencoder | None = None

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        if self.stages and abs(sum(stage.share for stage in self.stages) - 1) > 1e-9:
            raise ValueError("the shares of the stages do not sum to 1")
        if self.stages and self.partial_channels != 1:
            raise ValueError("with stages, partial_channels is set in each stage")
        divisors = [stage.partial_channels for stage in self.stages]
        if divisors != sorted(divisors, reverse=True):
            raise ValueError("a stage has fewer channels than the one before it")
        if self.stages and self.shared_features:
            raise ValueError("shared_features cannot be combined with stages")
        return self


def refuse_others(of_images: Mapping[str, Any], of_words: Mapping[str, Any], words: bool, instead: str) -> None:
    """Raise HwnasError for a setting, by name, that is given but only the other networks have.

    Those are networks of images if this is one of ``words``, for which ``instead`` is a recipe, else those of words.
    """
    others, kind, own = (of_images, "images", "words") if words else (of_words, "words", "images")
    if found := next((name for name, value in others.items() if value), None):
        problem = f"{found} is for networks of {kind}, and this is one of {own}"
        raise HwnasError(problem, f"leave {found} out of the recipe" + f", or use {instead}" * words)


def recorded_recipe(content: dict[str, Any]) -> Recipe:
    """Return the recipe that a search has recorded, which has no finalists where it names none."""
    return Recipe.model_validate({"finalists": None, **content})


def read_recipe(name: str, changes: dict[str, Any]) -> Recipe:
    """Return a search recipe of ``configs/search``; see ``read_settings``."""
    return read_settings(Recipe, "search", name, changes)


def read_settings(kind: type[Settings], folder: str, name: str, changes: dict[str, Any]) -> Settings:
    """Read a recipe of ``configs/FOLDER`` by name, or a YAML file by path, and replace some values.

    ``base:`` in a recipe names another recipe whose values it inherits. ``changes`` uses dots for nested values
    (``child.epochs``); None leaves a value unchanged. Raises HwnasError for an unknown recipe, an unknown field or a
    value out of range.
    """
    content = _read(folder, name, ())
    for key, value in changes.items():
        if value is not None:
            nested = content
            *parents, last = key.split(".")
            for parent in parents:
                if not isinstance(nested.get(parent), dict):
                    nested[parent] = {}
                nested = nested[parent]
            nested[last] = value
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise HwnasError(f"recipe {name}: {first_problem(error)}", f"see {_path(folder, name)}") from None


def recipe_of(method: str, space: str, data: str) -> str:
    """Return the name of a method's recipe for a space, or CHAIN for any chain of layers; the short one for the
    embedded digits in NAS-Bench-201.

    Raises HwnasError for a method without a recipe for the space.
    """
    if method == "snas" and space not in (CHAIN, *TEXT_SPACES):
        return "snas-short" if data.startswith("digits") else "snas"
    folder = "short" if data.startswith("digits") and space == "nasbench201" else space
    known = [name.split("/")[1] for name in known_recipes() if name.startswith(f"{folder}/")]
    if method not in known:
        elsewhere = any(name.endswith(f"/{method}") for name in known_recipes())
        problem = f"method {method} has no recipe for space {space}" if elsewhere else f"unknown method {method!r}"
        raise HwnasError(problem, f"use one of {', '.join(known)}")
    return f"{folder}/{method}"


def known_recipes(folder: str = "search") -> list[str]:
    """Return the names of the recipes in ``configs/FOLDER``, such as snas and nasbench201/drnas."""
    root = shipped("configs") / folder
    return sorted(file.relative_to(root).with_suffix("").as_posix() for file in root.rglob("*.yaml"))


def _path(folder: str, name: str) -> Path:
    return Path(name) if name.endswith((".yaml", ".yml")) else shipped("configs") / folder / f"{name}.yaml"


def _read(folder: str, name: str, derived: tuple[str, ...]) -> dict[str, Any]:
    """Return a recipe's values merged over those of its base."""
    import yaml

    known = ", ".join(known_recipes(folder))
    if name in derived:
        raise HwnasError(f"recipe {name} is its own base", "name another base")
    try:
        content = yaml.safe_load(decode_text(_path(folder, name).read_bytes(), f"recipe {name}", ""))
    except OSError:
        raise HwnasError(f"unknown recipe {name!r}", f"use one of {known}, or the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise HwnasError(f"recipe {_path(folder, name)} is not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise HwnasError(f"recipe {_path(folder, name)} is empty", f"use one of {known}")
    if "base" not in content:
        return content
    return _merge(_read(folder, str(content.pop("base")), (*derived, name)), content)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge ``changes`` over ``base``: nested settings are merged, but a choice with a name replaces another."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict) and "name" not in value
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
