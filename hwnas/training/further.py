"""Training and evaluating the networks of a finished search again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwnas.cost.model import build_cost_models
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.export.network import onnx_accuracy
from hwnas.files import sha256_of_file
from hwnas.progress import Progress
from hwnas.recipe import ChildTraining, Optimizer
from hwnas.run import Finished, fit_setting, read_targets, write_child
from hwnas.training.child import accuracy, train_child


def train_further(
    folder: Path, epochs: int, learning_rate: float, data_spec: str | None, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """Train every target's network from the weights that are there, and write its files again; one row a target."""
    targets = read_targets(folder)
    data = _data(targets, data_spec, progress)
    optimizer = Optimizer(name="sgd", lr=learning_rate, lr_end=0.0, weight_decay=3e-4, clip_norm=5.0)
    recipe = ChildTraining(epochs=epochs, batch_size=min(64, len(data.train)), optimizer=optimizer)
    rows = []
    for target in targets:
        child = target.child()
        before = accuracy(child, data, data.validation)
        start = sha256_of_file(target.place / "weights.safetensors")
        # The search's own checkpoint is not this training's: a folder of its own, named by what it starts from.
        place = target.place / f"training-{start[:12]}"
        history = train_child(child, data, recipe, seed, place, start, progress)
        result = {
            "validation_accuracy_before_training": before,
            "validation_accuracy": history[-1].validation_accuracy,
            "child_epochs": target.content["child_epochs"] + len(history),
            "architecture": target.content["architecture"],
        }
        costs = build_cost_models(target.table, target.space, target.setting)
        rows.append(
            write_child(
                child,
                target.architecture,
                target.space,
                costs,
                target.budget,
                target.table,
                data,
                target.place,
                result,
            )
        )
    return rows


def evaluate(folder: Path, split_name: str, data_spec: str | None, progress: Progress) -> list[dict[str, Any]]:
    """Accuracy on a split: of the ONNX file through ONNX Runtime, and of the torch network; one row a target."""
    if split_name not in ("train", "validation", "test"):
        raise HwnasError(f"unknown split {split_name!r}", "use train, validation or test")
    targets = read_targets(folder)
    data = _data(targets, data_spec, progress)
    split = getattr(data, split_name)
    return [
        {
            "budget": target.budget.text,
            "images": len(split),
            "onnx_accuracy": onnx_accuracy(target.place / "network.onnx", data, split),
            "torch_accuracy": accuracy(target.child().eval(), data, split),
        }
        for target in targets
    ]


def _data(targets: list[Finished], spec: str | None, progress: Progress) -> ImageData:
    data = load_data(spec or targets[0].content["data"], progress)
    setting = targets[0].setting
    if fit_setting(setting, data) != setting:
        raise HwnasError(
            f"the images of {data.name} are {data.shape} with {len(data.labels)} classes, "
            f"the networks take {setting.describe()}",
            "give the data of the search",
        )
    return data
