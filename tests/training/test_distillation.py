"""Distillation: its loss against numpy, teachers of every kind, a resumed training, teachers that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.export.network import data_metadata, export_network
from hwnas.runs.teacher import load_teacher
from hwnas.spaces import Setting
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.child import Trainer, train_child
from hwnas.training.distillation import Teacher, soft_loss
from support.training import DATA, TINY, recipe_of, tiny_child


def expected_soft_loss(scores: NDArray[np.float64], taught: NDArray[np.float64], temperature: float) -> float:
    target = softmax(taught / temperature, axis=1)
    gap = log_softmax(taught / temperature, axis=1) - log_softmax(scores / temperature, axis=1)
    return temperature**2 * float((target * gap).sum(axis=1).mean())


def fixed_teacher(child: nn.Module) -> Teacher:
    module = child.eval().requires_grad_(False)
    return Teacher("fixed", "f" * 64, lambda images: module(images))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_loss_and_its_gradient_are_those_of_the_paper(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, taught = (torch.randn(6, 5, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    scores.requires_grad_()
    loss = soft_loss(scores, taught, temperature)
    values = scores.detach().numpy(), taught.numpy()
    assert loss.item() == pytest.approx(expected_soft_loss(*values, temperature), rel=1e-9)
    loss.backward()
    gradient = temperature * (softmax(values[0] / temperature, axis=1) - softmax(values[1] / temperature, axis=1)) / 6
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad.numpy(), gradient, rtol=1e-9, atol=1e-12)


def test_a_step_adds_the_teacher_to_the_loss() -> None:
    settings = {"teacher": "fixed", "temperature": 2.0, "weight": 0.7}
    recipe = recipe_of("quick", label_smoothing=0.1, distillation=settings)
    teacher = fixed_teacher(tiny_child(seed=5))
    trainer = Trainer(tiny_child(), DATA, recipe, teacher=teacher)
    seen: list[Tensor] = []
    trainer.child.parts[-1].register_forward_hook(lambda m, i, o: seen.append(o.detach().double()))
    images, targets = DATA.train_batch(0, 8, 0)
    trainer.take_step()
    (scores,) = (values.numpy() for values in seen)
    smoothed = 0.9 * np.eye(10)[targets] + 0.1 / 10
    hard = float(-(smoothed * log_softmax(scores, axis=1)).sum(axis=1).mean())
    soft = expected_soft_loss(scores, teacher.scores(images).double().numpy(), 2.0)
    assert float(trainer.sums.loss) == pytest.approx(0.3 * hard + 0.7 * soft, rel=1e-4)


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_resumed_distillation_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, teacher = recipe_of("quick", epochs=2, distillation={"teacher": "fixed"}), fixed_teacher(tiny_child(seed=5))
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    stops = {2, 4}

    def progress(stage: str, done: int, total: int) -> None:
        if done in stops:
            stops.remove(done)
            raise KilledError

    def run(folder: Path, taught_by: Teacher) -> dict[str, Tensor]:
        return train_child(tiny_child(), DATA, recipe, folder, "a test", progress, teacher=taught_by).weights["last"]

    for _ in range(2):
        with pytest.raises(KilledError):
            run(tmp_path / "parts", teacher)
    with pytest.raises(HwnasError, match="other settings"):
        run(tmp_path / "parts", Teacher("fixed", "0" * 64, teacher.scores))
    parts, whole = run(tmp_path / "parts", teacher), run(tmp_path / "whole", teacher)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.slow
def test_an_onnx_file_teaches_with_its_own_normalisation(tmp_path: Path) -> None:
    child, file = tiny_child(seed=3).eval(), tmp_path / "teacher.onnx"
    metadata = data_metadata(DATA)
    export_network(child, file, metadata)
    images, _ = next(iter(DATA.batches(DATA.validation, 4)))
    with torch.no_grad():
        torch.testing.assert_close(load_teacher(str(file), DATA).scores(images), child(images), rtol=1e-3, atol=1e-4)
        other = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.4, 0.2]}
        export_network(child, file, metadata | {"normalisation": json.dumps(other)})
        mean, std = (torch.tensor(other[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        expected = child((DATA.validation.images[:4].float() / 255 - mean) / std)  # type: ignore[operator]
        torch.testing.assert_close(load_teacher(str(file), DATA).scores(images), expected, rtol=1e-3, atol=1e-4)
    export_network(child, file, metadata | {"labels": json.dumps(list("9876543210"))})
    with pytest.raises(HwnasError, match=r"the classes of teacher .*teacher.onnx are 9, 8, 7"):
        load_teacher(str(file), DATA)


def small_module() -> nn.Module:
    return tiny_child(seed=4)


def no_module() -> int:
    return 3


def few_classes() -> nn.Module:
    return tiny_child(Setting(channels=4, depth=3, classes=7))


def small_images() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))


def test_a_function_returns_a_teacher() -> None:
    teacher = load_teacher(f"python:{__name__}:small_module", DATA)
    images, _ = next(iter(DATA.batches(DATA.validation, 4)))
    assert torch.equal(teacher.scores(images), small_module().eval()(images))
    assert not teacher.scores(images).requires_grad
    assert teacher.fingerprint == load_teacher(f"python:{__name__}:small_module", DATA).fingerprint


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cake", "there is no teacher 'cake'"),
        ("none.onnx", "none.onnx does not exist"),
        (f"python:{__name__}:no_module", "returned a value of type int"),
        (f"python:{__name__}:few_classes", r"returns \(2, 7\) for 2 images of random, which has 10 classes"),
        (f"python:{__name__}:small_images", r"does not take batches of images of random, 3x32x32: mat1 and mat2"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(spec: str, message: str) -> None:
    assert TINY.height == 32
    with pytest.raises(HwnasError, match=message):
        load_teacher(spec, DATA)
