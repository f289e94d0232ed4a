"""Training of children: published schedules, augmentation, drop path, bit-identical resumption, and evaluation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score
from torch import Tensor, nn
from torch.nn import functional

from hwnas.compute.precision import bfloat16_flag
from hwnas.data import ImageData, Split
from hwnas.errors import HwnasError
from hwnas.networks.auxiliary import AuxiliaryHead, auxiliary_head
from hwnas.networks.child import ChildNetwork
from hwnas.networks.drop_path import DropPath, drop_path
from hwnas.recipe import known_recipes
from hwnas.spaces import CellInstance, Setting, SizedSpace, get_space
from hwnas.training import child as training
from hwnas.training.augment import cutout
from hwnas.training.child import Trainer, train_child
from hwnas.training.evaluation import accuracy, calibration_error, evaluate_scores
from hwnas.training.processes import SINGLE_PROCESS, Processes
from hwnas.training.quality import Quality
from hwnas.training.recipe import Training, read_training
from hwnas.training.training_row import TrainingRow
from support.training import DATA, recipe_of, tiny_child

DARTS = get_space("darts")


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_shipped_recipes_are_the_published_ones() -> None:
    """Liu et al. 2019 (released train.py, train_imagenet.py), Xie et al. 2019, Dong & Yang 2020 (200E.config)."""
    recipes = {name: read_training(name, {}) for name in known_recipes("train")}
    assert set(recipes) == {"darts-cifar10", "snas-cifar10", "imagenet-mobile", "nasbench201", "quick", "text"}
    darts, imagenet, bench = (recipes[name] for name in ("darts-cifar10", "imagenet-mobile", "nasbench201"))
    assert (darts.epochs, darts.batch_size, darts.cutout, darts.auxiliary_weight, darts.drop_path) == (
        600, 96, 16, 0.4, 0.2,
    )  # fmt: skip
    assert (darts.optimizer.momentum, darts.optimizer.clip_norm, darts.label_smoothing) == (0.9, 5, 0)
    assert darts.model_copy(update={"setting": "snas-cifar"}) == recipes["snas-cifar10"]
    assert (imagenet.epochs, imagenet.batch_size, imagenet.label_smoothing, imagenet.drop_path) == (250, 128, 0.1, 0)
    assert (imagenet.auxiliary_weight, imagenet.optimizer.weight_decay, imagenet.cutout) == (0.4, 3e-5, 0)
    assert [name for name, recipe in recipes.items() if recipe.augment == "imagenet"] == ["imagenet-mobile"]
    assert (bench.epochs, bench.batch_size, bench.optimizer.nesterov, bench.optimizer.weight_decay) == (
        200, 256, True, 5e-4,
    )  # fmt: skip
    assert (bench.auxiliary_weight, bench.drop_path, bench.cutout, bench.optimizer.clip_norm) == (0, 0, 0, 0)
    sizes = {name: (DARTS.setting(recipes[name].setting)) for name in ("darts-cifar10", "imagenet-mobile")}
    assert {name: (s.channels, s.depth) for name, s in sizes.items()} == {
        "darts-cifar10": (36, 20), "imagenet-mobile": (48, 14),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drop_path": 1.0}, "drop_path"),
        ({"optimizer.factor": 0.9}, "factor belongs to schedule exponential"),
        ({"optimizer.schedule": "exponential", "optimizer.lr_end": 0.1}, "lr_end belongs to schedule cosine"),
        ({"cake": 1}, "cake"),
        ({"ema": 1.0}, "ema"),
        ({"precision": "float8"}, "precision"),
    ],
)
def test_bad_recipes_of_training_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        read_training("darts-cifar10", changes)


# --- schedules, through the real loop --------------------------------------------------------------------------------


def torchs_cosine(rate: float, count: int) -> list[float]:
    """Return the learning rates of torch's own scheduler."""
    judge = torch.optim.SGD([nn.Parameter(torch.zeros(1))], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(judge, count)
    rates = []
    for _ in range(count):
        rates.append(schedule.get_last_lr()[0])
        judge.step()
        schedule.step()
    return rates


def spied_training(
    monkeypatch: pytest.MonkeyPatch, folder: Path, recipe: Training
) -> tuple[list[dict[str, float]], list[float], list[dict[str, Any]]]:
    """Return SGD's settings at every step, the probability of every drop path, and the rows of the history."""
    steps: list[dict[str, float]] = []
    probabilities: list[float] = []
    real_step = torch.optim.SGD.step

    def step(self: torch.optim.SGD, *arguments: Any) -> Any:
        (group,) = self.param_groups
        steps.append({key: group[key] for key in ("lr", "weight_decay", "momentum")})
        return real_step(self, *arguments)

    def spy(probability: float, *others: Any) -> DropPath:
        probabilities.append(probability)
        return drop_path(probability, *others)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    monkeypatch.setattr(training, "drop_path", spy)
    train_child(tiny_child(), DATA, recipe, folder, "a test", lambda *a: None)
    rows = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    return steps, probabilities, rows


@pytest.mark.slow
def test_darts_cifar10_follows_its_schedule_epoch_by_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Learning rate by torch's cosine, drop path 0.2 e / E, constant weight decay 3e-4, as in DARTS's train.py."""
    cosine = torchs_cosine(0.025, 5)
    steps, probabilities, rows = spied_training(monkeypatch, tmp_path, recipe_of())
    assert len(steps) == 15
    for epoch, expected in enumerate(cosine):
        for step in steps[3 * epoch : 3 * epoch + 3]:
            assert step == {"lr": pytest.approx(expected), "weight_decay": 3e-4, "momentum": 0.9}
        assert rows[epoch]["learning_rate"] == pytest.approx(expected)
        assert rows[epoch]["drop_path"] == pytest.approx(0.2 * epoch / 5)
    assert probabilities == pytest.approx([0.2 * epoch / 5 for epoch in (1, 2, 3, 4) for _ in range(3)])
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(0 <= row["validation_accuracy"] <= 1 and 0 <= row["train_accuracy"] <= 1 for row in rows)


@pytest.mark.slow
def test_imagenet_falls_by_3_percent_an_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps, probabilities, _ = spied_training(monkeypatch, tmp_path, recipe_of("imagenet-mobile", epochs=3))
    expected = [0.1 * 0.97**epoch for epoch in range(3) for _ in range(3)]
    assert [step["lr"] for step in steps] == pytest.approx(expected)
    assert {step["weight_decay"] for step in steps} == {3e-5}
    assert probabilities == []


def test_nasbench201_falls_at_every_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cosine = torchs_cosine(0.1, 9)
    steps, _, _ = spied_training(monkeypatch, tmp_path, recipe_of("nasbench201", epochs=3))
    assert [step["lr"] for step in steps] == pytest.approx(cosine)


# --- the auxiliary head ----------------------------------------------------------------------------------------------


def test_auxiliary_head_is_the_published_one() -> None:
    """P-DARTS's authors published both counts: 3,910,224 parameters with the head, 3,433,798 without."""
    assert parameters(AuxiliaryHead(576, 10, imagenet=False)) == 3_910_224 - 3_433_798
    imagenet = AuxiliaryHead(768, 1000, imagenet=True)
    assert parameters(imagenet) == 768 * 128 + 2 * 128 + 128 * 768 * 4 + 768 * 1000 + 1000  # no norm behind the last
    assert imagenet(torch.randn(2, 768, 7, 7)).shape == (2, 1000)


def test_auxiliary_head_computes_its_layers() -> None:
    torch.manual_seed(0)
    head, x = AuxiliaryHead(6, 10, imagenet=False).eval(), torch.randn(3, 6, 8, 8)
    first, first_norm, second, second_norm = (head.features[i] for i in (2, 3, 5, 6))
    y = functional.avg_pool2d(x.clamp(min=0), 5, stride=3)
    assert y.shape[2:] == (2, 2)
    y = first_norm(functional.conv2d(y, first.weight)).clamp(min=0)
    y = second_norm(functional.conv2d(y, second.weight)).clamp(min=0).reshape(3, 768)
    torch.testing.assert_close(head(x), y @ head.classifier.weight.T + head.classifier.bias)


@pytest.mark.parametrize(("name", "params", "cell"), [("cifar", 3_349_342, 13), ("imagenet-mobile", 4_718_752, 9)])
def test_auxiliary_head_sits_at_two_thirds_and_is_not_counted(name: str, params: int, cell: int) -> None:
    setting = DARTS.setting(name)
    child = ChildNetwork(SizedSpace(DARTS, setting), DARTS.parse("DARTS_V2"))
    head, part = auxiliary_head(child)
    assert part == cell + (2 if name == "imagenet-mobile" else 1)  # behind the stem
    assert parameters(child) == params  # as published, without the head
    assert head.features[2].in_channels == 4 * 4 * setting.channels


def test_auxiliary_head_is_trained_by_its_share_of_the_loss() -> None:
    """The recorded loss is main + 0.4 auxiliary, both with label smoothing, of the observed scores."""
    trainer = Trainer(tiny_child(), DATA, recipe_of(label_smoothing=0.1, cutout=0))
    seen: list[Tensor] = []
    assert trainer.auxiliary is not None
    trainer.auxiliary.register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    trainer.child.parts[-1].register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    before = [p.detach().clone() for p in trainer.auxiliary.parameters()]
    _, targets = DATA.train_batch(0, 8, 0)
    trainer.take_step()
    main, second = (seen[0], seen[1])
    expected = 0.0
    for scores, weight in ((main, 1.0), (second, 0.4)):
        p = np.exp(scores.double().numpy()) / np.exp(scores.double().numpy()).sum(axis=1, keepdims=True)
        wanted = np.full((8, 10), 0.1 / 10)
        wanted[np.arange(8), targets] += 0.9
        expected += weight * float(-(wanted * np.log(p)).sum(axis=1).mean())
    assert trainer.sums.loss == pytest.approx(expected, rel=1e-5)
    assert all(not torch.equal(a, b) for a, b in zip(before, trainer.auxiliary.parameters(), strict=True))


def test_images_too_small_for_an_auxiliary_head_are_refused() -> None:
    with pytest.raises(HwnasError, match=r"at least 8x8.*4x4"):
        auxiliary_head(tiny_child(Setting(4, 3, height=16, width=16)))


# --- drop path and cutout --------------------------------------------------------------------------------------------


def test_drop_path_applies_to_every_edge_but_identities() -> None:
    """DARTS_V2 has 8 edges a cell. Two skips of the normal cell and three of the reduction cell are identities: none of
    them starts at an input of a reduction.
    """
    child, dropped = tiny_child(), Counter[int]()
    kinds = [part.kind for part in child.network.parts if isinstance(part, CellInstance)]
    assert kinds == ["normal", "reduce", "reduce"]

    def spy(x: Tensor) -> Tensor:
        dropped[x.shape[2]] += 1
        return x

    child.eval().values(torch.randn(2, 3, 32, 32), spy)
    assert dropped == {32: 6, 16: 5, 8: 5}


def test_drop_path_in_training_drops_images_at_its_rate() -> None:
    child, rates, scaled = tiny_child(), [], []
    drop = drop_path(0.3, torch.Generator().manual_seed(1), child.num_edges, 200)

    def spy(x: Tensor) -> Tensor:
        y = drop(x)
        gone = (y == 0).flatten(1).all(dim=1)
        rates.append(float(gone.float().mean()))
        scaled.append(bool(torch.allclose(y[~gone], x[~gone] / 0.7)))
        return y

    with torch.no_grad():
        child.train().values(torch.randn(200, 3, 32, 32), spy)
    assert all(scaled)
    # 16 edges of 200 images: the mean of 3,200 draws, five standard deviations
    assert np.mean(rates) == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / 3200))
    assert len(set(rates)) > 3  # every edge draws for itself


def published_holes(side: int, length: int) -> dict[bytes, int]:
    """Return how often DeVries & Taylor's code makes each mask, over all centres."""
    masks: Counter[bytes] = Counter()
    for y in range(side):
        for x in range(side):
            mask = np.ones((side, side), dtype=bool)
            top, bottom = np.clip([y - length // 2, y + length // 2], 0, side)
            left, right = np.clip([x - length // 2, x + length // 2], 0, side)
            mask[top:bottom, left:right] = False
            masks[mask.tobytes()] += 1
    return masks


@pytest.mark.parametrize(("side", "length"), [(32, 16), (8, 3)])
def test_cutout_makes_the_published_holes(side: int, length: int) -> None:
    images = torch.ones(3000, 3, side, side)
    cut = cutout(images, length, torch.Generator().manual_seed(0))
    assert torch.equal(cut[:, 0], cut[:, 1])
    seen = Counter((image[0].numpy() == 1).tobytes() for image in cut)
    masks = published_holes(side, length)
    assert set(seen) <= set(masks)
    holes = np.array([side**2 - np.frombuffer(mask, dtype=bool).sum() for mask in masks])
    shares = np.array(list(masks.values())) / side**2
    mean = float((holes * shares).sum())
    spread = float(np.sqrt((shares * (holes - mean) ** 2).sum()))
    assert float((cut[:, 0] == 0).sum(dim=(1, 2)).float().mean()) == pytest.approx(mean, abs=5 * spread / np.sqrt(3000))
    assert torch.equal(cut, cutout(images, length, torch.Generator().manual_seed(0)))
    assert bool((images == 1).all())


# --- averages, the best weights, early stops -------------------------------------------------------------------------


def test_average_of_weights_is_the_one_computed_by_hand() -> None:
    """a_1 = w_1; a_t = 0.7 a_(t-1) + 0.3 w_t, also for batch-norm statistics; the average is validated."""
    trainer = Trainer(tiny_child(), DATA, recipe_of(ema=0.7))
    by_hand: dict[str, np.ndarray] = {}
    for _ in range(3):
        trainer.take_step()
        for name, tensor in trainer.child.state_dict().items():
            now = tensor.double().numpy()
            by_hand[name] = 0.7 * by_hand[name] + 0.3 * now if name in by_hand else now.copy()
    for name, tensor in trainer.weights().items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.numpy(), by_hand[name], rtol=1e-4, atol=1e-6)
    assert trainer.history[0].validation_accuracy == accuracy(trainer.evaluated, DATA, DATA.validation)
    assert any(
        not torch.equal(a, b) for a, b in zip(trainer.child.parameters(), trainer.evaluated.parameters(), strict=True)
    )


def scripted(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> list[dict[str, Tensor]]:
    """Replace validation by these accuracies; return a list of the weights at each validation."""
    seen: list[dict[str, Tensor]] = []
    rest = iter(accuracies)

    def quality(network: nn.Module, data: ImageData, split: Split, processes: Processes) -> Quality:
        assert split is data.validation
        assert processes is SINGLE_PROCESS
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return Quality(next(rest))

    monkeypatch.setattr(training, "quality_of", quality)
    return seen


@pytest.mark.parametrize("keep", ["last", "best"])
def test_best_and_last_weights_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keep: str) -> None:
    seen = scripted(monkeypatch, [0.2, 0.5, 0.4, 0.5, 0.1])
    child = tiny_child()
    recipe = recipe_of(keep=keep)
    trained = train_child(child, DATA, recipe, tmp_path, "a test", lambda *a: None)
    assert trained.row(keep).epoch == {"last": 5, "best": 2}[keep]
    for name, epoch in (("last", 5), ("best", 2)):
        assert all(torch.equal(seen[epoch - 1][key], tensor) for key, tensor in trained.weights[name].items())
    kept = trained.weights[keep]
    assert all(torch.equal(kept[key], tensor) for key, tensor in child.state_dict().items())
    assert trained.stopped == ""


def test_patience_ends_a_training_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, [0.2, 0.5, 0.4, 0.5])  # a fifth would raise
    said: list[TrainingRow] = []
    arguments = (tiny_child(), DATA, recipe_of(patience=2), tmp_path, "a test")
    trained = train_child(*arguments, lambda *a: None, said.append)
    assert len(trained.history) == 4
    assert "50.00% of epoch 2 in 2 epochs" in trained.stopped
    rows = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert rows == [row.to_json() for row in said]
    assert [row.get("stopped", "") for row in rows] == ["", "", "", trained.stopped]


# --- exact resumption ------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_resumes_bit_identically_after_interruptions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str
) -> None:
    """With cutout, drop path, auxiliary head, momentum, moving average and best weights."""
    recipe = recipe_of(epochs=3, ema=0.9, precision=precision, keep="best")

    def run(folder: Path, kill_at: set[int]) -> tuple[dict[str, dict[str, Tensor]], bytes]:
        def progress(stage: str, done: int, total: int) -> None:
            if done in kill_at:
                kill_at.remove(done)
                raise KilledError

        history = folder / "training.jsonl"
        while True:
            torch.manual_seed(len(kill_at))  # numbers from elsewhere do not matter
            try:
                trained = train_child(tiny_child(), DATA, recipe, folder, "a test", progress)
                return trained.weights, history.read_bytes()
            except KilledError:
                continue

    whole, whole_history = run(tmp_path / "whole", set())
    monkeypatch.setattr(training.Checkpoint, "due", lambda self: True)
    parts, parts_history = run(tmp_path / "parts", {1, 3, 5, 9})
    assert parts_history == whole_history
    for name in ("last", "best"):
        assert all(torch.equal(parts[name][key], tensor) for key, tensor in whole[name].items())


def test_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    def train(recipe: Training) -> None:
        train_child(tiny_child(), DATA, recipe, tmp_path, "a test", lambda *a: None)

    train(recipe_of(epochs=1))
    with pytest.raises(HwnasError, match="other settings"):
        train(recipe_of(epochs=2))


def test_a_loss_that_is_not_finite_is_refused() -> None:
    child = tiny_child()
    with torch.no_grad():
        next(child.parameters()).fill_(float("nan"))
    with pytest.raises(HwnasError, match="nan at step 0"):
        Trainer(child, DATA, recipe_of()).take_step()


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16 sse", "avx512_bf16"),
        ("fpu avx512_bf16 amx_bf16", "amx_bf16"),
        ("fpu avx2 avx512_bf16x", None),
        (None, None),
    ],
)
def test_bfloat16_is_recognised_by_the_processors_flags(
    tmp_path: Path, flags: str | None, expected: str | None
) -> None:
    file = tmp_path / "cpuinfo"
    if flags:
        file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert bfloat16_flag(file) == expected


def test_bfloat16_gradients_agree_with_those_of_float32() -> None:
    """A cell with dilated convolutions at 32x32, whose weight gradients are wrong in torch's channels-last layout."""
    genotype = "Genotype(normal=[('dil_conv_5x5', 0), ('dil_conv_3x3', 1), ('dil_conv_5x5', 1), ('sep_conv_3x3', 0), " \
        "('sep_conv_5x5', 1), ('skip_connect', 0), ('dil_conv_3x3', 2), ('avg_pool_3x3', 0)], reduce=[" \
        "('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), " \
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)])"  # fmt: skip
    gradients, kinds = {}, {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(
            tiny_child(written=genotype),
            DATA,
            recipe_of(precision=precision, auxiliary_weight=0, **{"optimizer.lr": 1e-9, "optimizer.clip_norm": 0}),
        )
        outputs: list[Tensor] = []
        convolution = trainer.child.parts[1].edges["0"][1]  # type: ignore[index, union-attr]
        convolution.register_forward_hook(lambda module, given, out, to=outputs: to.append(out))
        trainer.take_step()
        kinds[precision] = outputs[0].dtype
        gradients[precision] = {n: p.grad.clone() for n, p in trainer.child.named_parameters() if p.grad is not None}
        assert all(p.dtype == torch.float32 for p in trainer.child.parameters())
    assert kinds == {"float32": torch.float32, "bfloat16": torch.bfloat16}
    norm = torch.cat([g.flatten() for g in gradients["float32"].values()]).norm()
    for name, exact in gradients["float32"].items():
        assert float((gradients["bfloat16"][name] - exact).norm()) < 0.1 * float(norm), name


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 6, 17])
def test_evaluation_agrees_with_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(classes)
    scores = generator.normal(size=(400, classes)).astype(np.float32)
    targets = generator.integers(classes, size=400)
    found = evaluate_scores(scores, targets)
    labels = list(range(classes))
    assert found.accuracy == accuracy_score(targets, scores.argmax(axis=1))
    assert found.confusion == confusion_matrix(targets, scores.argmax(axis=1), labels=labels).tolist()
    if classes > 5:
        assert found.top5_accuracy == top_k_accuracy_score(targets, scores, k=5, labels=labels)
    else:
        assert found.top5_accuracy is None


def test_calibration_error_follows_its_definition() -> None:
    """Guo et al. 2017, equation 3, bin by bin; and by hand: confidence 0.75 and accuracy 0.5 differ by 0.25."""
    by_hand = np.log(np.array([[0.75, 0.25]] * 4, dtype=np.float32))
    assert calibration_error(by_hand, np.array([0, 0, 1, 1])) == pytest.approx(0.25, abs=1e-6)
    generator = np.random.default_rng(0)
    scores = (3 * generator.normal(size=(500, 4))).astype(np.float32)
    targets = generator.integers(4, size=500)
    p = torch.from_numpy(scores).double().softmax(dim=1).numpy()
    expected = 0.0
    for m in range(15):
        inside = (p.max(axis=1) > m / 15) & (p.max(axis=1) <= (m + 1) / 15)
        if inside.any():
            right = (p.argmax(axis=1) == targets)[inside]
            expected += inside.sum() / 500 * abs(right.mean() - p.max(axis=1)[inside].mean())
    assert calibration_error(scores, targets) == pytest.approx(expected)
