"""The files that decide how good cells are: published accuracies, and measured latencies of some devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.benchmark.accuracy import AccuracyTable, read_accuracy
from hwnas.benchmark.judged_target import JudgedTarget, judge_targets
from hwnas.benchmark.latency import read_latencies
from hwnas.benchmark.schema import JudgedBy
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.search.objective import Objective


@dataclass(frozen=True)
class Truth:
    """Accuracies, and the measured latencies in ms [N] of the device of every table, None where the tables decide.

    ``latency_file`` is what a summary records of the file of latencies.
    """

    accuracies: AccuracyTable
    latencies: Mapping[str, Array] | None = None
    latency_file: JudgedBy | None = None

    def judge(self, objectives: Sequence[Objective]) -> list[JudgedTarget]:
        """Judge every cell by every objective. Raises HwnasError where no cell keeps a budget."""
        return judge_targets(objectives, self.latencies)


def read_truth(accuracy: str, latency: Path | None, columns: Mapping[str, str], tables: Collection[str]) -> Truth:
    """Read the accuracies and, if there is a file of them, the latencies of the tables' devices.

    ``columns`` maps names of tables to columns of the file where they differ. Raises HwnasError for files that are
    damaged or do not fit the tables.
    """
    accuracies = read_accuracy(accuracy)
    if latency is None:
        if columns:
            raise HwnasError("--latency-column names a column of --latency, which is not given", "give both")
        return Truth(accuracies)
    if not tables:
        raise HwnasError("--latency decides which cells keep a budget, and there is none", "give --table and --budget")
    measured = read_latencies(latency)
    found = measured.columns_of(tables, columns)
    values = {table: measured.values[column] for table, column in found.items()}
    return Truth(accuracies, values, JudgedBy(sha256=measured.sha256, columns=found))
