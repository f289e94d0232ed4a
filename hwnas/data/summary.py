"""One line that describes a data set: classes, images per split, files left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwnas.progress import Progress
from hwnas.text import printable, shorten

NAMES_SHOWN = 5
LONGEST_NAME = 30


@dataclass
class LeftOut:
    """Files that are not read, counted by suffix or other reason, and folders that are not read."""

    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    def count(self, reason: str, number: int = 1) -> None:
        self.files[reason] += number

    def add(self, other: LeftOut) -> None:
        self.files.update(other.files)
        self.folders.extend(other.folders)

    def __str__(self) -> str:
        counted = sorted(self.files.items(), key=lambda item: (-item[1], item[0]))
        reasons = [f"{count:,} {reason if count > 1 else _singular(reason)}" for reason, count in counted if count]
        if self.folders:
            reasons.append(f"folder{'s' * (len(self.folders) > 1)} {list_names(self.folders)}")
        return ", ".join(reasons)


def list_names(names: Sequence[str], noun: str = "") -> str:
    """Return the first names, after the noun "class" in singular or plural: "classes cat, dog and 3 more"."""
    shown = [shorten(printable(name), LONGEST_NAME) for name in names[:NAMES_SHOWN]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"{_plural(noun, len(names))} {', '.join(shown)}{more}".lstrip()


def log_summary(
    progress: Progress, spec: str, labels: Sequence[str], images: Iterable[str], left_out: LeftOut | None = None
) -> None:
    """Log one line; ``images`` are texts such as "24 train"."""
    suffix = f"; left out: {left_out}" if left_out and str(left_out) else ""
    classes = f"{len(labels):,} {_plural('class', len(labels))} ({list_names(labels)})"
    progress.log(f"{spec}: {classes}; images: {', '.join(images)}{suffix}")


def warn_of_absent_classes(
    progress: Progress, spec: str, labels: Sequence[str], splits: Mapping[str, NDArray[np.int64]]
) -> None:
    """Log one warning for every split, given by its class numbers [N], that has no image of some classes."""
    for name, classes in splits.items():
        present = set(np.unique(classes).tolist())
        if absent := [label for number, label in enumerate(labels) if number not in present]:
            progress.log(
                f"warning: {spec} has no {name} image of {list_names(absent, 'class')}; results ignore "
                f"{'it' if len(absent) == 1 else 'them'} there: give every class at least 4 images"
            )


def _plural(noun: str, count: int) -> str:
    return f"{noun}es" if noun and count != 1 else noun


def _singular(reason: str) -> str:
    return reason.replace("files", "file").replace("images", "image")
