"""Read accuracy tables: the published accuracy of every NAS-Bench-201 cell after full training.

Two forms are read: a CSV file, optionally gzipped, with the column ``arch`` and one column a data set, such as
``arch,cifar10,cifar100,imagenet16_120``; and, with the prefix ``nats:``, a file or folder of NATS-Bench (Dong et al.,
TPAMI 2021), read by the nats_bench package. The latter are pickles, which can run any program when opened; the prefix
makes that choice explicit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.model import Array
from hwnas.csv_files import read_csv
from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.imports import require_extra
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import decode, encode, every_choice
from hwnas.spaces.nasbench201 import NASBENCH201

NATS = "nats:"
NATS_DATA_SETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16_120": "ImageNet16-120"}
NATS_EPOCHS = "200"
FORM = "give a CSV file with the columns arch and a data set each, one row a cell"


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracies in percent: ``values[data set]`` [N], in the order of ``every_choice`` of NAS-Bench-201."""

    values: Mapping[str, Array]

    @property
    def data_sets(self) -> list[str]:
        return list(self.values)

    @property
    def sha256(self) -> str:
        """Hash of the numbers, independent of the file they came in."""
        return sha256_of({data_set: values.tolist() for data_set, values in self.values.items()})

    def accuracy(self, data_set: str, cell: Architecture) -> float:
        """Return the accuracy of a cell in percent."""
        return float(self.values[data_set][_row_index(cell)])

    def best(self, data_set: str, within: NDArray[np.bool_] | None = None) -> float:
        """Return the best accuracy in percent of all cells, or of those selected by the mask ``within`` [N]."""
        values = self.values[data_set]
        return float((values if within is None else values[within]).max())

    def regret(self, data_set: str, cell: Architecture, within: NDArray[np.bool_] | None = None) -> float:
        """Return the distance of a cell from the best one, in percentage points."""
        return self.best(data_set, within) - self.accuracy(data_set, cell)


def read_accuracy(source: str) -> AccuracyTable:
    """Read a CSV file (optionally gzipped) or, with the prefix ``nats:``, a NATS-Bench pickle.

    Raises HwnasError for a file that is unreadable, damaged or too large, a wrong header, missing, unknown or repeated
    cells, and numbers that are not percentages.
    """
    if source.startswith(NATS):
        found = _nats_rows(Path(source.removeprefix(NATS)))
        return _table("nats_bench's benchmark", NATS_DATA_SETS, enumerate(found, start=1))
    file = read_csv(Path(source), FORM)
    data_sets = file.headings[1:]
    if file.columns[:1] not in (("arch",), ("architecture",)) or not data_sets:
        raise HwnasError(f"{source} does not begin with the columns arch and a data set each", FORM)
    if strange := next((name for name in data_sets if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name)), None):
        raise HwnasError(f"{source} has a column {strange[:80]!r}, which is not a valid data set name", FORM)
    return _table(source, data_sets, ((row.line, [cell.strip() for cell in row.cells]) for row in file.rows))


def _table(name: str, data_sets: Iterable[str], rows: Iterable[tuple[int, Sequence[str]]]) -> AccuracyTable:
    """Check (line, row) with rows of an architecture and one number a data set; every cell must appear exactly once."""
    choices = every_choice(NASBENCH201)
    cells = [NASBENCH201.format(decode(NASBENCH201, choice)) for choice in choices]
    index_of = {cell: index for index, cell in enumerate(cells)}
    names = list(data_sets)
    values = np.full((len(cells), len(names)), np.nan)
    for line, row in rows:
        if len(row) != 1 + len(names):
            raise HwnasError(f"{name}, line {line}: it has {len(row)} columns, not {1 + len(names)}", FORM)
        index = index_of.get("".join(row[0].split()))
        if index is None:
            raise HwnasError(f"{name}, line {line}: {row[0][:120]!r} is not a NAS-Bench-201 cell", FORM)
        if not np.isnan(values[index, 0]):
            raise HwnasError(f"{name}, line {line}: cell {row[0]} appears twice", FORM)
        values[index] = [_percentage(name, line, text) for text in row[1:]]
    missing = np.flatnonzero(np.isnan(values[:, 0]))
    if len(missing):
        raise HwnasError(f"{name} lacks {len(missing):,} of {len(cells):,} cells, such as {cells[missing[0]]}", FORM)
    return AccuracyTable({data_set: values[:, column].copy() for column, data_set in enumerate(names)})


def _percentage(name: str, line: int, text: str) -> float:
    value = float(text) if re.fullmatch(r"\d+(\.\d*)?(e[+-]?\d+)?", text, re.ASCII) else math.nan
    if not 0 <= value <= 100:  # rejects NaN too
        raise HwnasError(f"{name}, line {line}: {text[:40]!r} is not a percentage from 0 to 100", FORM)
    return value


def _nats_rows(path: Path) -> list[list[str]]:
    """Read the test accuracy after 200 epochs, averaged over seeds, of every architecture in a NATS-Bench file."""
    nats_bench = require_extra("nats_bench", "nats", "reading NATS-Bench's files")
    fix = "give NATS-Bench's NATS-tss-v1_0-3ffb9-simple folder, or its file"
    if not path.exists():
        raise HwnasError(f"{path} does not exist", fix)
    rows = []
    try:
        api = nats_bench.create(str(path), "tss", fast_mode=path.is_dir(), verbose=False)
        for index in range(len(api)):
            means = (
                api.get_more_info(index, data_set, hp=NATS_EPOCHS, is_random=False)["test-accuracy"]
                for data_set in NATS_DATA_SETS.values()
            )
            rows.append([api.arch(index), *(repr(float(value)) for value in means)])
            api.arch2infos_dict.pop(index)  # frees memory: a folder is loaded one architecture at a time
    except Exception as error:  # a pickle can fail in any way
        raise HwnasError(f"nats_bench cannot read {path} ({type(error).__name__}: {error})", fix) from None
    return rows


def _row_index(cell: Architecture) -> int:
    """Return the index of a cell in ``every_choice``."""
    index = 0
    for choice in encode(NASBENCH201, [cell])[0]:
        index = index * len(NASBENCH201.operations) + int(choice)
    return index
