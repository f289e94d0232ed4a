"""Run a session on a GPU, show its plan, or rehearse it on the processor. ``benchmarks/gpu/run.sh`` calls it."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from benchmarks.gpu import records
from benchmarks.gpu.images import FOLDER, RANDOM, decode_archive
from benchmarks.gpu.machine import describe_machine
from benchmarks.gpu.plan import MOST_S, RETURN_S, Places, Step, rehearsal, steps
from benchmarks.gpu.returned import restore
from benchmarks.gpu.session import run_session
from hwnas.errors import HwnasError

SET_UP_S = 40  # packages, images, what came back from an earlier session


def show(plan: list[Step]) -> str:
    """Return the plan as text, with the sum of its limits."""
    rows: list[tuple[str, float, str]] = [
        (records.SET_UP, SET_UP_S, "packages, images, what an earlier session returned")
    ]
    rows += [(step.name, step.limit_s, step.what + " (resumable)" * step.resumable) for step in plan]
    rows += [("return", RETURN_S, "archives of at most eight files")]
    lines = [f"{name:<22}{seconds:>6.0f} s  {what}" for name, seconds, what in rows]
    total = sum(seconds for _, seconds, _ in rows)
    return "\n".join([*lines, f"{'in all':<22}{total:>6.0f} s, at most {MOST_S} s"])


def prepare_images(pack: Path, work: Path) -> None:
    """Decode the carried images and name their folder to the steps; without an archive, those that need it fail."""
    archive = pack / "cifar10-images.tar.gz"
    if not archive.exists():
        return
    folder = work / "images"
    decode_archive(archive, folder)
    os.environ[FOLDER] = str(folder)


def set_up(pack: Path, places: Places, rehearse: bool) -> None:
    """Restore what an earlier session returned, and prepare the images."""
    restore(pack / "returned", places)
    if rehearse:
        os.environ[FOLDER] = RANDOM
    else:
        prepare_images(pack, places.work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("gpu-session"))
    parser.add_argument("seconds", type=float, nargs="?", default=MOST_S)
    parser.add_argument("--plan", action="store_true", help="Only show the steps and their limits.")
    parser.add_argument("--rehearse", action="store_true", help="Tiny steps on the processor.")
    parser.add_argument("--only", nargs="+", help="Names of the steps to run.")
    parser.add_argument("--pack", type=Path, default=Path("gpu-pack"), help="The folder that pack.sh filled.")
    parser.add_argument("--work", type=Path, help="Folder of runs and images; by default beside OUT.")
    parser.add_argument("--spent", type=float, default=0.0, help="Seconds of the session that have passed before.")
    arguments = parser.parse_args()
    began = time.monotonic()
    work = arguments.work or arguments.out.with_name(arguments.out.name + "-work")
    places = Places(arguments.out.absolute(), work.absolute())
    plan = (rehearsal if arguments.rehearse else steps)(places)
    if arguments.plan:
        print(show(plan))
        return
    names = [step.name for step in plan]
    if unknown := [name for name in arguments.only or () if name not in names]:
        parser.error(f"no step is named {', '.join(unknown)}; the steps are {', '.join(names)}")
    chosen = [step for step in plan if not arguments.only or step.name in arguments.only]
    places.out.mkdir(parents=True, exist_ok=True)
    places.work.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    try:
        set_up(arguments.pack, places, arguments.rehearse)
    except Exception as error:  # the record must state it
        tail = str(error) if isinstance(error, HwnasError) else traceback.format_exc()
        records.write(places.out, {"step": records.SET_UP, "state": "failed", "tail": tail, "machine": machine})
        print(tail, file=sys.stderr)
        sys.exit(1)
    done = records.finished(records.read(places.out))
    left_s = arguments.seconds - arguments.spent - (time.monotonic() - began)
    run_session(chosen, places, left_s, machine, done)
    print(f"{places.out}: " + ", ".join(sorted(file.name for file in places.out.iterdir())))


if __name__ == "__main__":
    main()
