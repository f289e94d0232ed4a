"""Write the report of folders: the page of finished runs, or that of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.report.benchmark_content import is_benchmark, read_benchmark
from hwnas.report.benchmark_page import write_benchmark_page
from hwnas.report.run_content import read_run
from hwnas.report.run_page import write_run_page


def write_report(folders: Sequence[Path], out: Path, files: Path) -> list[Path]:
    """Write one page about finished runs, or about one benchmark, and its figures and numbers into ``files``.

    Returns the files in ``files``. Raises HwnasError for folders of both kinds, and for a folder that is unfinished or
    damaged.
    """
    benchmarks = [folder for folder in folders if is_benchmark(folder)]
    if not benchmarks:
        return write_run_page([read_run(folder) for folder in folders], out, files)
    if len(folders) > 1:
        raise HwnasError(
            f"{benchmarks[0]} is a benchmark: a page is about one benchmark, or about runs", "make a page for each"
        )
    return write_benchmark_page(read_benchmark(benchmarks[0]), out, files)
