"""The whole flow in a few minutes: this machine, embedded images, three budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.profile import profile
from hwnas.progress import Progress
from hwnas.recipe import read_recipe
from hwnas.runs.search import SearchRequest, answer
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.io import read_table

BUDGETS = ["mild", "moderate", "aggressive"]
CHANNELS, CELLS = 8, 1


def run_demo(out: Path, progress: Progress) -> list[dict[str, Any]]:
    """Profile this machine's processor, search nasbench201 at 8 channels and one cell a stage on the digits, verify.

    Returns the rows of ``OUT/summary.json``. An interrupted demo goes on; a finished one exports and verifies again.
    """
    sized = SizedSpace.named(get_space("nasbench201"), "cifar", channels=CHANNELS, depth=CELLS)
    path = out / "profile.json"
    if path.exists():
        progress.log(f"using the latency table {path}")
    else:
        progress.log("measuring this machine")
        plan = ProfilePlan(parse_device("cpu"), sized, fit_networks=20, report_networks=20, accept_noise=True)
        profile(plan, path, progress)
    table = read_table(path)  # its hash is the file's, so that the same command finds the same run
    report = next(iter(table.quality.additivity.values()))
    progress.log(
        f"{table.describe()}: {len(table.entries)} workloads, mean error {report.mape:.1f} % on whole networks"
    )
    if warning := table.noise_warning:
        progress.log(warning)
    recipe = read_recipe("snas-short", {})
    return answer(SearchRequest(sized, {"profile": table}, "digits", BUDGETS, recipe, verify=True), out, progress)
