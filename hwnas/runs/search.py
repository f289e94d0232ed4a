"""Run a whole search: from latency tables, images and budgets to ONNX networks in one folder.

The files of the folder are described in hwnas.runs.schema and docs/reference/run-folder.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from hwnas.data import ImageData, load_data
from hwnas.export.timing import require_its_device
from hwnas.files import write_json
from hwnas.progress import Progress
from hwnas.runs.derived import DerivedNetwork
from hwnas.runs.folder import PROFILE, SUMMARY, table_file
from hwnas.runs.manifest import describe_run, write_manifest
from hwnas.runs.plots import draw_run
from hwnas.runs.read import fit_to_data
from hwnas.runs.records import read_summary
from hwnas.runs.request import SearchRequest, build_objectives
from hwnas.runs.schema import Manifest, Summary, SummaryRow
from hwnas.runs.select import select_architecture
from hwnas.runs.verify import verify_run
from hwnas.runs.write import write_network
from hwnas.search.methods import register_builtin
from hwnas.search.resume import run_to_end
from hwnas.search.search import Search
from hwnas.search.target import TargetState
from hwnas.tables.schema import today
from hwnas.training.child import train_child
from hwnas.training.evaluation import accuracy, recalibrate
from hwnas.training.processes import leave_group, process_group
from hwnas.training.recipe import training_of
from hwnas.training.step_profile import StepProfile


def run_search(request: SearchRequest, folder: Path, progress: Progress, profile: bool = False) -> list[SummaryRow]:
    """Search, derive, train, export and, on request, verify; return the targets of ``summary.json``.

    ``profile`` writes a profile of some search steps to DIR/profile. Several processes (hwnas.training.processes)
    search together; after the search only rank 0 continues, and the others return no rows. A repeated call resumes an
    interrupted one.

    Raises HwnasError, before any training, for inputs that do not fit together or to the folder.
    """
    processes = process_group()
    if request.verify:
        for table in request.tables.values():
            require_its_device(table)
    with processes.rank_zero_first():  # rank 0 downloads the images, where that is needed
        data = load_data(request.data_spec, progress)
    sized = fit_to_data(request.sized, data)
    objectives, described = build_objectives(request, sized)
    manifest = describe_run(request, sized, data, processes)
    if processes.is_rank_zero:
        write_manifest(request, sized.space, manifest, folder)
    computed = manifest.computed
    described.append(f"{computed['on']} computes the supernet in {computed['precision']} with {computed['kernels']}")
    for line in described:
        progress.log(line)

    torch.manual_seed(request.recipe.seed)
    register_builtin()
    search = Search(sized, objectives, data, request.recipe, processes, progress.log)
    many = len(request.tables) > 1
    with StepProfile(folder / PROFILE, progress.log, processes.is_rank_zero) if profile else nullcontext() as profiler:
        digest = manifest.digest
        run_to_end(search, folder, digest, progress, lambda row: progress.log(row.describe(many)), profiler)
    if not processes.is_single:
        for target in search.targets:  # candidates are scored by all processes together
            search.choose(target)
        if not processes.is_rank_zero:
            return []
        search.evaluator.processes = leave_group()
    search.data.stop_decoding()
    rows = [_finish(request, search, target, data, folder, progress) for target in search.targets]
    return _summarise(request, manifest, rows, folder, progress)


def _finish(
    request: SearchRequest, search: Search, target: TargetState, data: ImageData, folder: Path, progress: Progress
) -> SummaryRow:
    """Select one target's architecture, train the network from the supernet's weights, and export it."""
    recipe, objective = request.recipe, target.objective
    target_folder = folder / objective.target
    architecture, attempts = select_architecture(
        search, target, request.tables, request.verify, target_folder, progress
    )
    child = search.supernet.child(architecture)
    child.to(search.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recalibrate(child, search.data, recipe.batch_size, recipe.seed)
    before = accuracy(child, search.data, search.data.validation)
    training = training_of(recipe.child, recipe.seed, recipe.compute)
    start = f"{search.space.format(architecture, all_edges=True)} after step {search.step}"
    history = train_child(child, search.data, training, target_folder, start, progress).history
    result: dict[str, Any] = {
        "validation_accuracy_before_training": before,
        "validation_accuracy": history[-1].validation_accuracy if history else before,
        "child_epochs": len(history),
        "derivations": attempts,
    }
    devices = target.budget.devices or [objective.device]
    tables = {device: table for device, table in request.tables.items() if device in devices}
    files = {device: table_file(request.tables, device) for device in tables}
    derived = DerivedNetwork(objective.target, target_folder, files, tables, search.sized, architecture, target.budget)
    row = write_network(child, derived, objective.costs, data, result)
    assert isinstance(row, SummaryRow)  # a searched network claims its budget
    return row


def _summarise(
    request: SearchRequest, manifest: Manifest, rows: list[SummaryRow], folder: Path, progress: Progress
) -> list[SummaryRow]:
    """Write ``summary.json`` and its pictures; verify the networks on request."""
    summary = Summary(targets=rows, finished=today(), tables=manifest.tables)
    write_json(folder / SUMMARY, summary.to_json())
    draw_run(folder, progress.log)
    if request.verify:
        verify_run(folder, None, progress)
    return read_summary(folder, f"search again with --out {folder}").targets
