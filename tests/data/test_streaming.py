"""Images decoded when they are needed: the same batches as from memory, exact resumption, errors of other processes in
one line; and what ImageNet's training images are put through.
"""

from __future__ import annotations

import colorsys
import json
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest
from torch import Tensor

from hwnas.data import ImageData, Split, folder, load_data, memory
from hwnas.data.files import Fit, ImageFiles
from hwnas.data.imagenet import ImagenetAugmentation
from hwnas.data.images import choose_batch, seed_of
from hwnas.data.memory import memory_bytes
from hwnas.data.torchvision_cpu import torchvision_transforms
from hwnas.errors import HwnasError
from hwnas.export.quantize import quantize_network
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from hwnas.training.child import Trainer
from hwnas.training.recipe import read_training
from support.command import Run, assert_one_clear_line
from support.tables import make_table


def make_images(place: Path, count: int = 20, side: int | None = None) -> Path:
    """Random images of two classes, of random sizes where no side is given."""
    generator = np.random.default_rng(count)
    for label in ("cat", "dog"):
        (place / label).mkdir(parents=True)
        for number in range(count):
            height, width = (side, side) if side else generator.integers(14, 40, 2)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / label / f"{number}.png")
    return place


def passes(data: ImageData, split: Split, batch_size: int) -> Tensor:
    return torch.cat([images for images, _ in data.batches(split, batch_size)])


@pytest.mark.parametrize("stream", ["no", "yes"])
def test_shares_of_a_batch_are_the_batch(tmp_path: Path, stream: str) -> None:
    """What several processes see: of a step's images, and of the batches that judge a network."""
    data = load_data(f"imagefolder:{make_images(tmp_path / 'images')}?size=12&stream={stream}")
    shares = (slice(0, 2), slice(2, 5))
    for augment in ("shift-flip", "imagenet"):
        for step in range(2):
            whole = data.train_batch(step, 5, 3, None, augment)
            first, second = (data.train_batch(step, 5, 3, None, augment, share) for share in shares)
            for one, other, both in zip(first, second, whole, strict=True):
                assert torch.equal(torch.cat([one, other]), both)
    batches = list(data.batches(data.validation, 3))
    for rank in range(len(batches) + 1):
        mine = list(data.batches(data.validation, 3, slice(rank, None, len(batches))))
        assert len(mine) == (rank < len(batches))
        for batch in mine:
            assert all(torch.equal(a, b) for a, b in zip(batch, batches[rank], strict=True))


# --- streamed as in memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "options"), [(16, ""), (None, "size=12&"), (None, "size=12&crop=yes&")])
def test_streamed_images_are_those_in_memory(tmp_path: Path, side: int | None, options: str) -> None:
    place = make_images(tmp_path / "images", side=side)
    kept, streamed = (load_data(f"imagefolder:{place}?{options}stream={answer}") for answer in ("no", "yes"))
    assert isinstance(kept.train.images, Tensor)
    assert isinstance(streamed.train.images, ImageFiles)
    assert (kept.shape, kept.labels, kept.mean, kept.std) == (
        streamed.shape, streamed.labels, streamed.mean, streamed.std,
    )  # fmt: skip
    half = torch.arange(0, len(kept.train), 2)
    for augment in ("shift-flip", "imagenet"):
        for step in range(7):  # beyond two epochs of the half, one of all
            for part in (None, half):
                (a, classes), (b, same) = (d.train_batch(step, 5, 3, part, augment) for d in (kept, streamed))
                assert torch.equal(a, b)
                assert torch.equal(classes, same)
    for name in ("validation", "test"):
        a, b = getattr(kept, name), getattr(streamed, name)
        assert torch.equal(a.targets, b.targets)
        for batch_size in (3, 100):  # by processes, and in this one
            assert torch.equal(passes(kept, a, batch_size), passes(streamed, b, batch_size))
        assert torch.equal(a.images[torch.tensor([2, 0])], b.images[torch.tensor([2, 0])])
        assert torch.equal(a.images[1:4], b.images[1:4][torch.arange(3)])
        chosen = np.array([3, 1])
        assert torch.equal(passes(kept, a.part(chosen), 1), passes(streamed, b.part(chosen), 1))


def test_batches_do_not_depend_on_where_a_training_begins(tmp_path: Path) -> None:
    spec = f"imagefolder:{make_images(tmp_path / 'images')}?size=8&stream=yes"
    for augment in ("shift-flip", "imagenet"):
        data = load_data(spec)
        batches = [data.train_batch(step, 6, 1, augment=augment)[0] for step in range(9)]
        assert not torch.equal(batches[0], batches[4])  # the same images a later epoch
        for start in (5, 8, 2):
            others = load_data(spec)
            for data_of in (others, data):  # begun there; gone there
                found = [data_of.train_batch(step, 6, 1, augment=augment)[0] for step in range(start, 9)]
                assert all(torch.equal(a, b) for a, b in zip(found, batches[start:], strict=True))
        assert torch.equal(data.train_batch(8, 6, 1, augment=augment)[0], batches[8])  # asked again
        assert not torch.equal(data.train_batch(8, 6, 2, augment=augment)[0], batches[8])


def test_more_trainings_than_are_kept_open(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{make_images(tmp_path / 'images')}?size=8&stream=yes")
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
def test_decoding_leaves_torchs_random_numbers_alone(tmp_path: Path, augment: str) -> None:
    data = load_data(f"imagefolder:{make_images(tmp_path / 'images')}?size=8&stream=yes")
    before = torch.get_rng_state()
    data.train_batch(0, 4, 0, augment=augment)
    passes(data, data.validation, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_streamed_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    spec = f"imagefolder:{make_images(tmp_path / 'images')}?size=32&stream=yes"
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
    assert all(torch.equal(a, b) for a, b in zip(whole.learnt, second.learnt, strict=True))


def test_images_that_would_fill_the_memory_are_streamed_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_images(tmp_path / "images", side=10)  # 24 and 8 images of 300 bytes
    for available, streamed in ((4 * 32 * 300, False), (4 * 32 * 300 - 4, True)):
        monkeypatch.setattr(folder, "memory_bytes", lambda available=available: available)
        data = load_data(f"imagefolder:{place}", Progress())
        assert isinstance(data.train.images, ImageFiles) == streamed
        assert isinstance(data.test.images, ImageFiles) == streamed
        assert len(re.findall("decoded when they are needed .in memory they would take", capsys.readouterr().err)) == (
            streamed
        )
    assert isinstance(load_data(f"imagefolder:{place}?stream=no").train.images, Tensor)


def test_memory_is_what_the_system_says_or_the_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (limit, tmp_path / "none"))
    total = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
    for written, expected in ((None, total), ("max\n", total), ("12345678\n", 12345678)):
        if written:
            limit.write_text(written)
        assert memory_bytes() == expected


def test_fingerprint_of_streamed_images_is_of_names_sizes_and_classes(tmp_path: Path) -> None:
    place = make_images(tmp_path / "images", side=10)

    def fingerprint(options: str = "") -> str:
        return load_data(f"imagefolder:{place}?size=8&stream=yes{options}").fingerprint

    first = fingerprint()
    assert first == fingerprint("&grey=repeat")  # none was grey: a training may go on with it
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


# --- what goes wrong -------------------------------------------------------------------------------------------------


def damaged(place: Path, split: str) -> Path:
    """Cut off one image of a split."""
    images = getattr(load_data(f"imagefolder:{place}?size=8&stream=yes"), split).images
    file = images.path(len(images) - 1)
    file.write_bytes(file.read_bytes()[:80])
    return file


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_image_that_a_process_cannot_read_is_one_clear_line(
    run: Run, tmp_path: Path, table_file: Path, split: str
) -> None:
    place = make_images(tmp_path / "images")
    file = damaged(place, split)
    sizes = ("--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 1, "--batch-size", 8)
    data = ("--data", f"imagefolder:{place}?size=16&stream=yes", "--budget", "90%", "--out", tmp_path / "run")
    write_table(
        table_file, make_table(SizedSpace(get_space("nasbench201"), Setting(4, 1, height=16, width=16, classes=2)))
    )
    assert_one_clear_line(run("search", "--table", table_file, *sizes, *data), f"cannot read image {file}")


def test_a_training_goes_on_when_the_image_has_been_mended(tmp_path: Path) -> None:
    place = make_images(tmp_path / "images")
    whole = load_data(f"imagefolder:{place}?size=8&stream=yes")
    whole.mean  # noqa: B018 - of the images as they are
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


def test_a_process_that_is_killed_is_one_clear_line(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{make_images(tmp_path / 'images')}?size=8&stream=yes")
    data.train_batch(0, 4, 0)
    for child in multiprocessing.active_children():
        child.kill()

    def go_on() -> None:
        for step in range(1, 100):
            data.train_batch(step, 4, 0)

    with pytest.raises(HwnasError, match="a process that decodes images ended") as raised:
        go_on()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"), [("stream=maybe", "yes or no"), ("crop=yes", "size=N"), ("grey=green", "repeat")]
)
def test_bad_options_of_folders_are_refused(tmp_path: Path, options: str, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        load_data(f"imagefolder:{make_images(tmp_path / 'images')}?{options}")


def test_colours_of_five_channels_cannot_be_jittered() -> None:
    split = Split(torch.zeros(4, 5, 8, 8, dtype=torch.uint8), torch.arange(4) % 2)
    with pytest.raises(HwnasError, match="1 or 3 channels"):
        ImageData("five", ("a", "b"), split, split, lambda: split).train_batch(0, 2, 0, augment="imagenet")


# --- evaluation's crop, and the augmentation -------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(300, 200), (201, 333), (64, 64), (30, 199), (256, 341), (1000, 61)])
def test_the_middle_is_that_of_torchvision(height: int, width: int) -> None:
    generator = np.random.default_rng(height)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    v2 = torchvision_transforms()
    for side, shorter in ((224, 256), (28, 32), (56, 64)):
        expected = v2.Compose([v2.Resize(shorter), v2.CenterCrop(side)])(image)
        assert np.array_equal(np.array(Fit(side, side, "crop")(image)), np.array(expected))


def test_crops_are_uniform_in_area_and_of_published_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Areas of up to 3/4 always fit into a square, whatever their shape; they are uniform from 0.08."""
    v2, crops = torchvision_transforms(), []
    real = v2.RandomResizedCrop.transform

    def spy(self: object, image: Image.Image, params: dict[str, int]) -> Image.Image:
        crops.append((params["height"], params["width"], params["top"], params["left"]))
        return real(self, image, params)

    monkeypatch.setattr(v2.RandomResizedCrop, "transform", spy)
    augment, image = ImagenetAugmentation(8, 8, flip=True), Image.new("RGB", (600, 600))
    for seed in range(800):
        augment(image, seed)
    height, width, top, left = np.array(crops, dtype=float).T
    area, ratio = height * width / 600**2, width / height
    small = area < 0.75
    assert kstest(area[small], "uniform", (0.08, 0.67)).pvalue > 0.01
    assert kstest(np.log(ratio[small]) / np.log(4 / 3), "uniform", (-1, 2)).pvalue > 0.01
    assert kstest(((top + 0.5) / (601 - height))[small], "uniform").pvalue > 0.01
    assert kstest(((left + 0.5) / (601 - width))[small], "uniform").pvalue > 0.01
    assert area.max() > 0.9


def test_every_other_image_is_flipped() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(40, 200, 64).astype(np.uint8)[None, :, None], (64, 1, 3)))
    for flip, expected in ((True, 300), (False, 0)):
        augment = ImagenetAugmentation(16, 16, flip)
        columns = [augment(ramp, seed).float().mean(dim=(0, 1)) for seed in range(600)]
        assert abs(sum(bool(c[0] > c[-1]) for c in columns) - expected) <= (40 if flip else 0)  # over 3 deviations


def test_colours_are_jittered_as_published() -> None:
    """Grey of one level changes its brightness alone: 0.6 to 1.4 times. Of a colour, the hue moves by at most 0.2."""
    augment = ImagenetAugmentation(4, 4, flip=True)
    grey = Image.new("RGB", (20, 20), (120, 120, 120))
    levels = np.array([augment(grey, seed)[0, 0, 0].item() for seed in range(500)])
    assert kstest(levels / 120, "uniform", (0.6, 0.8)).pvalue > 0.01
    colour = Image.new("RGB", (20, 20), (110, 70, 70))
    hues = []
    for seed in range(500):
        red, green, blue = (augment(colour, seed)[:, 0, 0] / 255).tolist()
        hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
        hues.append((hue + 0.5) % 1 - 0.5)
        assert saturation > 0
    assert kstest(hues, "uniform", (-0.2, 0.4)).pvalue > 0.01


def test_one_image_in_the_batches_of_a_training(tmp_path: Path) -> None:
    """A batch's images do not share their random numbers; crops are of the whole image, not of the one in memory."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(10):
            pixels = np.random.default_rng(0).integers(0, 256, (90, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    data = load_data(f"imagefolder:{tmp_path}?size=8")
    assert data.train.files is not None
    images, _ = data.train_batch(0, 8, 0, augment="imagenet")
    assert len({tuple(image.flatten().tolist()) for image in images}) == 8
    number = int(choose_batch(len(data.train), 0, 8, 0)[0])
    whole = ImagenetAugmentation(8, 8, flip=True)(data.train.files.open(number), seed_of(0, 2, 0, number))
    assert torch.equal(data.normalise(whole[None])[0], images[0])
    assert data.train.files.open(number).size == (30, 90)


def test_grey_images_in_memory_are_augmented_too() -> None:
    images = torch.randint(256, (8, 1, 10, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, torch.arange(8) % 2)
    batch, _ = ImageData("grey", ("a", "b"), split, split, lambda: split).train_batch(0, 4, 0, augment="imagenet")
    assert batch.shape == (4, 1, 10, 12)


# --- the whole flow --------------------------------------------------------------------------------------------------


@pytest.mark.end_to_end
def test_a_run_on_streamed_images_is_one_on_images_in_memory(run: Run, tmp_path: Path) -> None:
    place = make_images(tmp_path / "images", count=40)
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
        assert ("decoded when they are needed (as asked)" in result.output) == (answer == "yes")
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
