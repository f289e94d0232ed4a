"""Text: splits, vocabulary and windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.data import load_data
from hwnas.data.text import TextData
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from support.paths import ROOT
from support.text import WORDS, write_text

PTB = ROOT.parent / "shared" / "data"


def load(spec: str) -> TextData:
    data = load_data(spec, Progress(quiet=True))
    assert isinstance(data, TextData)
    return data


def text_of(data: TextData, numbers: torch.Tensor) -> list[str]:
    return [data.labels[n] for n in numbers.flatten().tolist()]


def test_windows_hold_the_words_of_the_file_in_order(tmp_path: Path) -> None:
    """The expected words are split by hand, with an end after every line."""
    file = write_text(tmp_path / "a.txt")
    data = load(f"text:{file}?window=7")
    words = [word for line in file.read_text().splitlines() for word in [*line.split(), "<eos>"]]
    train = text_of(data, data.train.images)
    assert train == words[: len(train)]
    assert text_of(data, data.train.targets) == words[1 : len(train) + 1]
    assert sorted(data.labels) == sorted({*WORDS, "<eos>"})
    splits = (data.train, data.validation, data.test)
    assert [len(s) for s in splits] == [(round(share * len(words)) - 1) // 7 for share in (0.6, 0.2, 0.2)]
    held = text_of(data, data.test.images)
    assert held == words[len(words) - round(0.2 * len(words)) :][: len(held)]


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    for name, lines in (("ptb.train.txt", 30), ("ptb.valid.txt", 20), ("ptb.test.txt", 10)):
        write_text(tmp_path / name, lines, seed=lines)
    data = load(f"text:{tmp_path}?window=3")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [(9 * n - 1) // 3 for n in (30, 20, 10)]


def test_rare_words_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a a a b b c d\n" * 40)
    data = load(f"text:{tmp_path / 'a.txt'}?window=4&vocabulary=4")
    assert data.labels == ("<eos>", "<unk>", "a", "b")
    assert set(text_of(data, data.train.images)) == set(data.labels)


def test_words_of_held_out_text_alone_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c\n" * 60 + "d e\n" * 20 + "f g\n" * 20)
    data = load(f"text:{tmp_path / 'a.txt'}?window=3")
    assert data.labels == ("<eos>", "<unk>", "a", "b", "c")
    assert {"<eos>", "<unk>"} == set(text_of(data, data.test.images))


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    data = load(f"text:{write_text(tmp_path / 'a.txt')}?window=5")
    words, targets = data.train_batch(3, 8, seed=1)
    assert (words.shape, targets.shape) == ((8, 5), (40,))
    assert torch.equal(words, data.train_batch(3, 8, seed=1)[0])
    assert not torch.equal(words, data.train_batch(3, 8, seed=2)[0])
    assert torch.equal(words.flatten()[1:5], targets[:4])
    assert torch.equal(torch.cat([t for _, t in data.batches(data.validation, 3)]), data.validation.targets.flatten())


def test_the_penn_treebank_trains_on_its_validation_text() -> None:
    if not (PTB / "ptb.valid.txt").exists():
        pytest.skip("ptb.valid.txt is not there")
    data = load(f"text:{PTB / 'ptb.valid.txt'}?test={PTB / 'ptb.test.txt'}")
    assert len(data.labels) == 5507  # 5,506 different words of the training part and the end of a line
    assert data.test.targets.numel() > 80_000
    with pytest.raises(HwnasError, match=r"no training text \(it has ptb.test.txt, ptb.valid.txt\)"):
        load(f"text:{PTB}")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("text:nowhere", "text nowhere does not exist"),
        ("text:", "does not exist"),
        ("text:{file}?window=0", "window='0'"),
        ("text:{file}?window=9999", "which is no window of 9999 words"),
        ("text:{file}?size=3", "unknown option 'size'"),
        ("text:{file}?validation=nowhere.txt", "nowhere.txt does not exist"),
        ("text:{file}?test=nowhere.txt", "nowhere.txt does not exist"),
        ("text:{file}?test={empty}", "the test text of .* has 0 words"),
        ("text:{empty}", "the train text of .* has 0 words"),
        ("text:{file}?vocabulary=1", "a vocabulary of 1 word does not hold <eos> and <unk>"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, spec: str, words: str) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(HwnasError, match=words):
        load(spec.format(file=write_text(tmp_path / "a.txt"), empty=tmp_path / "empty.txt"))
