"""Streamed images: same batches as in memory, exact resumption, errors of worker processes in one line."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.data import ImageData, Split, load_data
from hwnas.data.files import ImageFiles
from hwnas.errors import HwnasError
from hwnas.export.quantize import quantize_network
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from hwnas.training.child import Trainer
from hwnas.training.recipe import read_training
from support.command import Run, assert_one_clear_line
from support.images import write_images
from support.tables import make_table


def all_batches(data: ImageData, split: Split, batch_size: int) -> Tensor:
    return torch.cat([images for images, _ in data.batches(split, batch_size)])


@pytest.mark.slow
@pytest.mark.parametrize(("side", "options"), [(16, ""), (None, "size=12&"), (None, "size=12&crop=yes&")])
def test_streamed_images_equal_those_in_memory(tmp_path: Path, side: int | None, options: str) -> None:
    place = write_images(tmp_path / "images", 20, side=side)
    in_memory, streamed = (load_data(f"imagefolder:{place}?{options}stream={answer}") for answer in ("no", "yes"))
    assert isinstance(in_memory.train.images, Tensor)
    assert isinstance(streamed.train.images, ImageFiles)
    assert (in_memory.shape, in_memory.labels, in_memory.mean, in_memory.std) == (
        streamed.shape, streamed.labels, streamed.mean, streamed.std,
    )  # fmt: skip
    half = torch.arange(0, len(in_memory.train), 2)
    for augment in ("shift-flip", "flip", "imagenet"):
        for step in range(7):  # beyond two epochs of the half, one of all
            for subset in (None, half):
                (a, classes), (b, same) = (d.train_batch(step, 5, 3, subset, augment) for d in (in_memory, streamed))
                assert torch.equal(a, b)
                assert torch.equal(classes, same)
    for name in ("validation", "test"):
        a, b = getattr(in_memory, name), getattr(streamed, name)
        assert torch.equal(a.targets, b.targets)
        for batch_size in (3, 100):  # in workers, and in this process
            assert torch.equal(all_batches(in_memory, a, batch_size), all_batches(streamed, b, batch_size))
        assert torch.equal(a.images[torch.tensor([2, 0])], b.images[torch.tensor([2, 0])])
        assert torch.equal(a.images[1:4], b.images[1:4][torch.arange(3)])
        chosen = np.array([3, 1])
        assert torch.equal(all_batches(in_memory, a.subset(chosen), 1), all_batches(streamed, b.subset(chosen), 1))


@pytest.mark.slow
def test_batches_do_not_depend_on_the_first_step(tmp_path: Path) -> None:
    spec = f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?size=8&stream=yes"
    for augment in ("shift-flip", "imagenet"):
        data = load_data(spec)
        batches = [data.train_batch(step, 6, 1, augment=augment)[0] for step in range(9)]
        assert not torch.equal(batches[0], batches[4])  # same images, later epoch
        for start in (5, 8, 2):
            others = load_data(spec)
            for source in (others, data):  # a stream started at this step; one moved to it
                found = [source.train_batch(step, 6, 1, augment=augment)[0] for step in range(start, 9)]
                assert all(torch.equal(a, b) for a, b in zip(found, batches[start:], strict=True))
        assert torch.equal(data.train_batch(8, 6, 1, augment=augment)[0], batches[8])  # same step again
        assert not torch.equal(data.train_batch(8, 6, 2, augment=augment)[0], batches[8])


@pytest.mark.slow
def test_more_streams_than_stay_open(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?size=8&stream=yes")
    alone = [[data.train_batch(step, 6, seed)[0] for step in range(3)] for seed in range(4)]
    in_turns = [[data.train_batch(step, 6, seed)[0] for seed in range(4)] for step in range(3)]
    assert all(torch.equal(alone[seed][step], in_turns[step][seed]) for seed in range(4) for step in range(3))
    assert multiprocessing.active_children()
    data.stop_decoding()
    assert not multiprocessing.active_children()
    data.train_batch(0, 6, 0)
    assert multiprocessing.active_children()
    del data
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("augment", ["shift-flip", "imagenet"])
def test_decoding_does_not_change_torchs_random_state(tmp_path: Path, augment: str) -> None:
    data = load_data(f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?size=8&stream=yes")
    before = torch.get_rng_state()
    data.train_batch(0, 4, 0, augment=augment)
    all_batches(data, data.validation, 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_a_streamed_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    spec = f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?size=32&stream=yes"
    space = get_space("nasbench201")
    recipe = read_training("imagenet-mobile", {"epochs": 2, "batch_size": 8, "auxiliary_weight": 0.0})

    def trainer() -> Trainer:
        torch.manual_seed(0)
        written = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"
        setting = Setting(channels=4, depth=1, height=32, width=32, classes=2)
        return Trainer(
            ChildNetwork(SizedSpace(space, setting), space.parse(written), prune=True), load_data(spec), recipe
        )

    whole, first, second = trainer(), trainer(), trainer()
    while not whole.over:
        whole.take_step()
    for _ in range(whole.total_steps // 2 + 1):
        first.take_step()
    second.load_state(first.state())
    while not second.over:
        second.take_step()
    assert second.history == whole.history
    parameters = zip(whole.child.parameters(), second.child.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in parameters)


def test_fingerprint_of_streamed_images_depends_on_names_sizes_and_classes(tmp_path: Path) -> None:
    place = write_images(tmp_path / "images", 20, side=10)

    def fingerprint(options: str = "") -> str:
        return load_data(f"imagefolder:{place}?size=8&stream=yes{options}").fingerprint

    first = fingerprint()
    assert first == fingerprint("&grey=repeat")  # no image is grey: a training may resume with it
    others = {first, fingerprint("&crop=yes"), fingerprint("&train=20")}
    train = load_data(f"imagefolder:{place}?size=8&stream=yes").train.images
    assert isinstance(train, ImageFiles)
    file = train.path(0)
    with file.open("ab") as opened:
        opened.write(b"more")
    others.add(fingerprint())
    file.rename(file.with_stem("99"))
    others.add(fingerprint())
    assert len(others) == 5


def damaged(place: Path, split: str) -> Path:
    """Truncate one image of a split and return its path."""
    images = getattr(load_data(f"imagefolder:{place}?size=8&stream=yes"), split).images
    file = images.path(len(images) - 1)
    file.write_bytes(file.read_bytes()[:80])
    return file


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_image_that_a_worker_cannot_read_is_one_clear_line(
    run: Run, tmp_path: Path, table_file: Path, split: str
) -> None:
    place = write_images(tmp_path / "images", 20, side=None)
    file = damaged(place, split)
    sizes = ("--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 1, "--batch-size", 8)
    data = ("--data", f"imagefolder:{place}?size=16&stream=yes", "--budget", "90%", "--out", tmp_path / "run")
    write_table(
        table_file, make_table(SizedSpace(get_space("nasbench201"), Setting(4, 1, height=16, width=16, classes=2)))
    )
    assert_one_clear_line(run("search", "--table", table_file, *sizes, *data), f"cannot read image {file}")


def test_a_training_resumes_after_the_image_is_restored(tmp_path: Path) -> None:
    place = write_images(tmp_path / "images", 20, side=None)
    whole = load_data(f"imagefolder:{place}?size=8&stream=yes")
    whole.mean  # noqa: B018 - compute it from the intact images
    batches = [whole.train_batch(step, 24, 0)[0] for step in range(2)]
    whole.stop_decoding()
    assert isinstance(whole.train.images, ImageFiles)
    file = whole.train.images.path(0)
    content = file.read_bytes()
    file.write_bytes(content[:80])
    for _ in range(2):
        with pytest.raises(HwnasError, match="cannot read image") as raised:
            whole.train_batch(0, 24, 0)
        assert "\n" not in str(raised.value)
    file.write_bytes(content)
    assert all(torch.equal(whole.train_batch(step, 24, 0)[0], batch) for step, batch in enumerate(batches))


@pytest.mark.slow
def test_a_killed_worker_is_one_clear_line(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?size=8&stream=yes")
    data.train_batch(0, 4, 0)
    for child in multiprocessing.active_children():
        child.kill()

    def go_on() -> None:
        for step in range(1, 100):
            data.train_batch(step, 4, 0)

    with pytest.raises(HwnasError, match="a worker process that decodes images ended") as raised:
        go_on()
    assert "\n" not in str(raised.value)


@pytest.mark.end_to_end
def test_a_run_on_streamed_images_equals_one_on_images_in_memory(run: Run, tmp_path: Path) -> None:
    place = write_images(tmp_path / "images", 40, side=None)
    table = tmp_path / "table.json"
    write_table(table, make_table(SizedSpace(get_space("nasbench201"), Setting(4, 1, height=16, width=16, classes=2))))
    sizes = ("--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 1, "--batch-size", 16)
    found = []
    for answer in ("yes", "no"):
        out = tmp_path / answer
        data = f"imagefolder:{place}?size=16&stream={answer}"
        result = run(
            "search", "--table", table, *sizes, "--child-epochs", 1, "--data", data, "--budget", "90%", "--out", out
        )
        assert result.exit_code == 0, result.output
        assert ("decoded when needed (as requested)" in result.output) == (answer == "yes")
        place_of = out / "90pct"
        quantize_network(place_of / "network.onnx", place_of / "network_int8.onnx", load_data(data))
        table_of_classes = tmp_path / f"{answer}.csv"
        evaluated = run("evaluate", out, "--split", "test", "--confusion", table_of_classes, "--json")
        assert evaluated.exit_code == 0, evaluated.output
        (row,) = json.loads(evaluated.stdout)["targets"]
        assert {"onnx_accuracy", "int8_accuracy", "torch_accuracy"} <= set(row)
        content = json.loads((place_of / "architecture.json").read_text())
        weights = (place_of / "weights.safetensors").read_bytes()
        found.append((row, content["parity"], content["architecture"], weights, table_of_classes.read_text()))
    assert found[0] == found[1]
