"""Read accuracy tables: the published accuracy of every NAS-Bench-201 cell after full training.

Two forms are read: a CSV file, optionally gzipped, with the column ``arch`` and one column a data set, such as
``arch,cifar10,cifar100,imagenet16_120``; and, with the prefix ``nats:``, a file or folder of NATS-Bench (Dong et al.,
TPAMI 2021), read by the nats_bench package. The latter are pickles, which can run any program when opened; the prefix
makes that choice explicit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmark.cell_table import NumberForm, index_of_cell, order_rows, parse_decimal, read_columns
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.imports import require_extra
from hwnas.spaces import Architecture

NATS = "nats:"
NATS_DATA_SETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16_120": "ImageNet16-120"}
NATS_EPOCHS = "200"


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracies in percent: ``values[data set]`` [N], in the order of ``every_choice`` of NAS-Bench-201."""

    values: Mapping[str, Array]

    @property
    def data_sets(self) -> list[str]:
        return list(self.values)

    @cached_property
    def sha256(self) -> str:
        """Hash of the numbers, independent of the file they came in."""
        return sha256_of({data_set: values.tolist() for data_set, values in self.values.items()})

    def accuracy(self, data_set: str, cell: Architecture) -> float:
        """Return the accuracy of a cell in percent."""
        return float(self.values[data_set][index_of_cell(cell)])

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
        rows = enumerate(_nats_rows(Path(source.removeprefix(NATS))), start=1)
        return AccuracyTable(order_rows("nats_bench's benchmark", NATS_DATA_SETS, rows, PERCENTAGES))
    return AccuracyTable(read_columns(Path(source), PERCENTAGES))


def _percentage(text: str) -> float | None:
    value = parse_decimal(text)
    return value if value is not None and value <= 100 else None


PERCENTAGES = NumberForm("data set", "a percentage from 0 to 100", _percentage)


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
