"""Profile a space on a GPU in minutes: all processors write models at once, then the models are timed as ever."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from pathlib import Path

import torch

from hwnas.compute.device import available_cores
from hwnas.files import write_json
from hwnas.profiling.models import write_model
from hwnas.profiling.plan import ProfilePlan, existing, models_to_time, partial_folder
from hwnas.profiling.profile import profile
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable


def write_all(plan: ProfilePlan, out: Path) -> None:
    """Write the models of a profile where ``profile`` looks for them, every processor a share of them."""
    start = ask(plan.spec)
    workloads = plan.workloads(existing(plan, out, start))
    folder = partial_folder(plan, out, workloads, start)
    models = list(models_to_time(plan, workloads, plan.networks()).values())
    shares = available_cores()

    def write_share(share: int) -> None:
        torch.set_num_threads(1)
        for number in range(share, len(models), shares):
            write_model(models[number], plan.spec, folder / f"{number}{plan.spec.runtime.suffix}")

    # Forked, because models cannot be pickled; this process has started neither threads nor CUDA.
    processes = [multiprocessing.get_context("fork").Process(target=write_share, args=(n,)) for n in range(shares)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def made_up_table(sized: SizedSpace) -> LatencyTable:
    """Return a table of the tests, whose latencies are random."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from support.tables import make_table

    return make_table(sized)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True)
    parser.add_argument("--out", type=Path, required=True, help="The table.")
    parser.add_argument("--result", type=Path, required=True, help="The errors of its predictions, and its warnings.")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--device", default="cuda:0+torch")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--networks", type=int, default=40, help="Whole networks; a third of them fit the correction.")
    parser.add_argument("--made-up", action="store_true", help="Time nothing: for a rehearsal on a busy machine.")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--depth", type=int)
    arguments = parser.parse_args()
    space = get_space(arguments.space)
    setting = space.setting(space.search_setting, channels=arguments.channels, depth=arguments.depth)
    fitted = max(arguments.networks // 3, 2)
    plan = ProfilePlan(
        parse_device(arguments.device),
        SizedSpace(space, setting),
        arguments.rounds,
        fitted,
        arguments.networks - fitted,
        arguments.minutes,
        accept_noise=True,
    )
    write_all(plan, arguments.out)
    if arguments.made_up:
        table = made_up_table(plan.sized)
        write_table(arguments.out, table)
    else:
        with Progress() as progress:
            table = profile(plan, arguments.out, progress)
    reports = {key: report.model_dump(mode="json") for key, report in table.quality.additivity.items()}
    gpu = table.protocol.gpu
    result = {"additivity": reports, "gpu": gpu and gpu.model_dump(mode="json"), "warnings": list(table.warnings)}
    write_json(arguments.result, result)
    print(result)


if __name__ == "__main__":
    main()
