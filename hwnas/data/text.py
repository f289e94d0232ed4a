"""Text: ``text:PATH``, a folder with a file a split or one training file, as windows of consecutive words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from hwnas.compute.device import to_device
from hwnas.compute.seeds import Purpose, numpy_generator
from hwnas.data.images import HELD_OUT, Augment, ImageData, Split, choose_batch
from hwnas.data.split_names import SplitName, split_of
from hwnas.errors import HwnasError
from hwnas.files import read_text
from hwnas.progress import Progress

UNKNOWN, END = "<unk>", "<eos>"  # a word that is not in the vocabulary; the end of a line
WINDOW = 35  # words of a window, over which gradients are propagated: usual for the Penn Treebank
MOST_WINDOWS = 32  # evaluated at once: a window has a score for every word of the vocabulary at every position
MOST_BYTES = 2**30
REWARD = 80.0  # over the perplexity, as ENAS (Pham et al., ICML 2018) rewards an architecture of words
FIX = "write text:FOLDER, with a file such as ptb.train.txt for each split, or text:FILE?test=FILE"
HELD: tuple[SplitName, ...] = ("validation", "test")  # held out of the training text where they have no file
WINDOWS_OF_RANDOM_WORDS = 8


@dataclass(frozen=True)
class TextData(ImageData):
    """Text as a data set: an "image" is a window of T words, its targets are the words that follow each of them.

    The splits hold numbers of words, int64 [N, T]; batches have targets [N * T], as networks of words have scores.
    ``labels`` is the vocabulary. A window knows no words before it. Nothing is augmented.
    """

    of_words: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a word, which has none: (1, 1, 1)."""
        return 1, 1, 1

    def normalise(self, images: Tensor) -> Tensor:
        """Return numbers of words as they are."""
        return images

    def reward(self, loss: Tensor, correct: Tensor, images: int) -> float:
        """Return 80 / perplexity."""
        return REWARD * float(torch.exp(-loss.detach().double()))

    def train_batch(
        self,
        step: int,
        batch_size: int,
        seed: int,
        subset: Tensor | None = None,
        augment: Augment = "shift-flip",
        share: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Return the words [N, T] and the targets [N * T] of one step, as a function of seed and step."""
        chosen = to_device(choose_batch(len(self.train), step, batch_size, seed, subset)[share], self.device)
        words = self.train.images
        assert isinstance(words, Tensor)
        return words[chosen], self.train.targets[chosen].flatten()

    def batches(self, split: Split, batch_size: int, share: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the words of a split once, in order, with their targets; at most 32 windows at once."""
        assert isinstance(split.images, Tensor)
        size = min(batch_size, MOST_WINDOWS)
        for words, targets in zip(split.images.split(size)[share], split.targets.split(size)[share], strict=True):
            yield to_device(words, self.device), to_device(targets, self.device).flatten()


def text_data(spec: str, location: str, options: Mapping[str, str], progress: Progress) -> TextData:
    """Load a text. A fifth of the training words, the last ones, is held out for each split without a file.

    ``location`` is the training file, or a folder with a file for each split, named by it (ptb.valid.txt). Options:
    ``validation`` and ``test`` name files, ``window`` is the number of words of a window, ``vocabulary`` the number of
    the most frequent words of the training text that are kept; all others, and those of held-out text alone, are read
    as ``<unk>``. Every line ends with the word ``<eos>``. Logs one line.

    Raises HwnasError for files that are missing or too short, the test file included.
    """
    files = _files(spec, location, options)
    window = int(options.get("window", WINDOW))
    texts = {name: _words(file) for name, file in files.items()}
    total = len(texts["train"])
    for name in reversed([name for name in HELD if name not in files]):
        kept = len(texts["train"]) - round(HELD_OUT * total)
        texts["train"], texts[name] = texts["train"][:kept], texts["train"][kept:]
    labels = vocabulary_of(texts["train"], int(options["vocabulary"]) if "vocabulary" in options else None)
    number = {word: n for n, word in enumerate(labels)}
    train, validation, test = (
        _windows(texts[name], number, window, f"{name} text of {spec}") for name in ("train", *HELD)
    )
    progress.log(
        f"{spec}: {len(labels):,} words in the vocabulary; windows of {window} words: "
        f"{len(train):,} train ({_origin('train', files)}), {len(validation):,} validation "
        f"({_origin('validation', files)}); test: {_origin('test', files)}"
    )
    return TextData(spec, labels, train, validation, lambda: test, flip=False)


def random_words(vocabulary: int) -> TextData:
    """Return a few windows of random words as every split of a text; the same in every run."""
    shape = (WINDOWS_OF_RANDOM_WORDS, WINDOW)
    words = torch.from_numpy(numpy_generator(0, Purpose.RANDOM_IMAGES).integers(vocabulary, size=shape))
    split = Split(words, words.roll(-1, dims=1))
    return TextData("random words", tuple(map(str, range(vocabulary))), split, split, lambda: split, flip=False)


def vocabulary_of(words: list[str], most: int | None) -> tuple[str, ...]:
    """Return ``<eos>``, ``<unk>`` and the other words, from the most frequent down; at most ``most``.

    Raises HwnasError for fewer than these two.
    """
    if most is not None and most < 2:
        raise HwnasError(f"a vocabulary of {most} word does not hold {END} and {UNKNOWN}", "keep more words")
    counted = Counter(words)
    for special in (UNKNOWN, END):
        counted[special] += len(words)  # always kept
    ordered = sorted(counted, key=lambda word: (-counted[word], word))
    return tuple(ordered[:most])


def _files(spec: str, location: str, options: Mapping[str, str]) -> dict[SplitName, Path]:
    """Return the file of every split that has one."""
    root = Path(location)
    if not location or not root.exists():
        raise HwnasError(f"text {location or spec} does not exist", FIX)
    files: dict[SplitName, Path] = {} if root.is_dir() else {"train": root}
    for file in sorted(root.iterdir()) if root.is_dir() else ():
        named = {split for word in re.split(r"[^a-z]+", file.name.lower()) if word and (split := split_of(word))}
        if file.is_file() and len(named) == 1:
            (name,) = named
            if name in files:
                raise HwnasError(f"{files[name]} and {file} are both the {name} text", FIX)
            files[name] = file
    for name in HELD:
        if name in options:
            files[name] = Path(options[name])
    if "train" not in files:
        found = ", ".join(file.name for file in files.values()) or "no text"
        raise HwnasError(f"folder {root} has no training text (it has {found})", FIX)
    return files


def _words(file: Path) -> list[str]:
    """Return the words of a file, with an ``<eos>`` after every line that is not empty."""
    text = read_text(file, "name a text file", MOST_BYTES)
    return [word for line in text.splitlines() if line.strip() for word in (*line.split(), END)]


def _windows(words: list[str], number: Mapping[str, int], window: int, name: str) -> Split:
    """Return the windows of a text; the words after the last whole one are left out."""
    unknown = number[UNKNOWN]
    numbers = torch.tensor([number.get(word, unknown) for word in words], dtype=torch.int64)
    count = (len(numbers) - 1) // window
    if count < 1:
        raise HwnasError(
            f"the {name} has {len(numbers):,} words, which is no window of {window} words and the word after it",
            "give a longer text, or a shorter window with window=N",
        )
    inputs, targets = numbers[: count * window], numbers[1 : count * window + 1]
    return Split(inputs.view(count, window), targets.view(count, window))


def _origin(name: SplitName, files: Mapping[SplitName, Path]) -> str:
    return files[name].name if name in files else f"held out of the end of {files['train'].name}"
