"""Recipes: the settings of a search, as YAML in ``configs/search``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from hwnas.errors import HwnasError
from hwnas.files import shipped


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimizer(Strict):
    """SGD (Nesterov off) or Adam; the learning rate follows a cosine from ``lr`` to ``lr_end`` over the epochs."""

    name: Literal["sgd", "adam"]
    lr: FiniteFloat = Field(gt=0)
    lr_end: FiniteFloat = Field(ge=0)
    momentum: FiniteFloat = 0.9
    betas: tuple[FiniteFloat, FiniteFloat] = (0.5, 0.999)
    weight_decay: FiniteFloat = Field(default=0.0, ge=0)
    clip_norm: FiniteFloat = Field(default=5.0, gt=0)


class Temperature(Strict):
    """Of the concrete distribution, linear from the first epoch to the last."""

    start: FiniteFloat = Field(gt=0)
    end: FiniteFloat = Field(gt=0)


class Penalty(Strict):
    """How costs enter the loss, with g = E[C]/B - 1 for every limited metric.

    ``dual``: lambda is found by dual ascent on the augmented Lagrangian (Hestenes 1969; Platt & Barr, NIPS 1987): the
    loss pulls with max(0, lambda + damping * g) on g, and lambda <- max(0, lambda + total_rate / n * min(g, 0.1)) at
    each of a target's n steps after ``warm_up`` (a share of the epochs; the damping starts then, too), one lambda a
    limit: short searches and those with many targets, which take turns, let lambda rise as far as long ones. Without
    damping E[C] swings around the budget. ``fixed``: lambda stays at ``weight``, as in the papers.

    What a fixed lambda weighs is the ``form``: ``relative`` is g; ``log`` and ``linear`` are the SNAS paper's penalty
    on ``resources`` (hwnas.search.resources), which needs no budget: the budget then binds the derivation alone.
    ``costs_of`` says whether those are resources of the batch's sample or of the probabilities.
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
            raise ValueError("resources and costs_of belong to form log or linear")
        if self.form != "relative" and self.mode != "fixed":
            raise ValueError(f"form {self.form} needs mode fixed")
        if self.form != "relative" and not self.resources:
            raise ValueError(f"form {self.form} needs resources, of params, macs and memory_access_bytes")
        if len(set(self.resources)) < len(self.resources):
            raise ValueError("resources names one twice")
        return self


class ChildTraining(Strict):
    """Training of the derived child from the supernet's weights. ``epochs`` 0 leaves them as they are."""

    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=2)
    optimizer: Optimizer


class Recipe(Strict):
    """Everything a search needs to know besides space, data, table and budgets.

    During ``logits_warm_up``, a share of the epochs, the weights learn and the logits stay: operations with weights are
    not yet worth more than those without, and a search that decides then collapses to ``skip_connect``.
    """

    method: Literal["snas"]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seed: int = Field(default=0, ge=0)
    weights: Optimizer
    logits: Optimizer
    logits_mean: FiniteFloat = 1.0
    logits_std: FiniteFloat = Field(default=0.01, ge=0)
    logits_warm_up: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    temperature: Temperature
    drop_path: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    penalty: Penalty
    inputs_per_node: int | None = Field(default=None, ge=1)
    child: ChildTraining


def read_recipe(name: str, changes: dict[str, Any]) -> Recipe:
    """A recipe of ``configs/search`` by name, or a YAML file by path, with some values replaced.

    ``changes`` uses dots for nested values (``child.epochs``); None leaves a value as it is. Raises HwnasError for an
    unknown recipe, an unknown field or a value out of range.
    """
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else shipped("configs") / "search" / f"{name}.yaml"
    known = ", ".join(sorted(file.stem for file in (shipped("configs") / "search").glob("*.yaml")))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise HwnasError(f"unknown recipe {name!r}", f"use one of {known}, or the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise HwnasError(f"recipe {path} is not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise HwnasError(f"recipe {path} is empty", f"use one of {known}")
    for key, value in changes.items():
        if value is not None:
            inner = content
            *parents, last = key.split(".")
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise HwnasError(f"recipe {name}: {where}: {first['msg']}", f"see {path}") from None
