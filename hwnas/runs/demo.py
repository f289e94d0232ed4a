"""The whole workflow in a few minutes: this machine, embedded images, three budgets."""

from __future__ import annotations

from pathlib import Path

from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.profile import profile
from hwnas.progress import Progress
from hwnas.recipe import read_recipe
from hwnas.runs.request import SearchRequest
from hwnas.runs.schema import SummaryRow
from hwnas.runs.search import run_search
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.io import read_table

BUDGETS = ["mild", "moderate", "aggressive"]
FINALISTS = {"finalists.trainings": 12, "finalists.baselines": True}
CHANNELS, CELLS = 8, 1


def run_demo(folder: Path, progress: Progress) -> list[SummaryRow]:
    """Profile this machine's processor, search nasbench201 at 8 channels and one cell a stage on the digits, verify.

    The networks are chosen by finalists, whatever these cost, and shown beside baselines within the same budgets.
    Returns the targets of ``summary.json``. A repeated call resumes an interrupted demo; after a finished one it
    exports and verifies again.
    """
    sized = SizedSpace.named(get_space("nasbench201"), "cifar", channels=CHANNELS, depth=CELLS)
    path = folder / "profile.json"
    if path.exists():
        progress.log(f"using the latency table {path}")
    else:
        progress.log("profiling this machine")
        plan = ProfilePlan(parse_device("cpu"), sized, fit_networks=20, report_networks=20, accept_noise=True)
        profile(plan, path, progress)
    table = read_table(path)  # with the hash of the file, so that a repeated call finds its run
    report = next(iter(table.quality.additivity.values()))
    progress.log(
        f"{table.describe()}: {len(table.entries)} workloads, mean error {report.mape:.1f} % on whole networks"
    )
    for warning in table.warnings:
        progress.log(warning)
    request = SearchRequest(
        sized, {"profile": table}, "digits", BUDGETS, read_recipe("snas-short", FINALISTS), verify=True
    )
    return run_search(request, folder, progress)
