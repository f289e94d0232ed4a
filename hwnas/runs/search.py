"""Run a whole search: from latency tables, images and budgets to ONNX networks in one folder.

The files of the folder are described in hwnas.runs.schema and docs/reference/run-folder.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch

from hwnas.compute.memory import enough_memory
from hwnas.cost.carried_head import head_notes
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.export.timing import require_its_device
from hwnas.files import write_json
from hwnas.finalists.baselines import BaselinePlan, plan_baselines
from hwnas.finalists.evidence import Evidence, read_trainings
from hwnas.finalists.judge import Judge
from hwnas.finalists.judgement import Judgement
from hwnas.finalists.of_search import judge_of
from hwnas.finalists.record import FINALISTS_FILE
from hwnas.jobs.choose import choose_executor
from hwnas.jobs.executor import Executor
from hwnas.networks.plain import require_plain
from hwnas.progress import Progress
from hwnas.runs.finish import Finish
from hwnas.runs.folder import PROFILE, SUMMARY
from hwnas.runs.manifest import describe_run, write_manifest
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.plots import draw_run
from hwnas.runs.pretrained import record_of, write_pretrained
from hwnas.runs.records import read_summary
from hwnas.runs.request import SearchRequest, build_objectives
from hwnas.runs.schema import Summary, SummaryRow
from hwnas.runs.settle import ADD, settle_request
from hwnas.runs.two_networks import TwoNetworks, choose_networks
from hwnas.runs.verify import verify_run
from hwnas.search.methods import register_builtin
from hwnas.search.resume import run_to_end
from hwnas.search.search import Search
from hwnas.tables.schema import today
from hwnas.text import quoted
from hwnas.training.processes import leave_group, process_group
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
        networks = _load(request, progress)
    require_plain(networks.target_sized)
    objectives, described = build_objectives(request.tables, request.budgets, networks.target_sized)
    settled = settle_request(request, networks, objectives, folder, processes)
    request, executor = settled.request, _executor(settled.request)
    manifest = describe_run(request, networks, settled.computed)
    if processes.is_rank_zero:
        write_manifest(request, networks.target_sized.space, manifest, folder)
    described[:0] = [*networks.describe(), *head_notes(request.tables, networks.target_sized)]
    for line in [*described, *settled.lines]:
        progress.log(line)

    torch.manual_seed(request.recipe.seed)
    register_builtin()
    with enough_memory(request.recipe.batch_size):
        search = Search(networks.search_sized, objectives, networks.data, request.recipe, processes, progress.log)
    if fit := search.supernet_state.fit:
        found = record_of(fit, Path(str(request.recipe.pretrained)))
        if processes.is_rank_zero:
            write_pretrained(found, folder)
        progress.log(found.describe())
    plan = plan_baselines(search) if executor else BaselinePlan([], [])
    for line in plan.lines:
        progress.log(line)
    many = len(request.tables) > 1
    with StepProfile(folder / PROFILE, progress.log, processes.is_rank_zero) if profile else nullcontext() as profiler:
        digest = manifest.digest
        run_to_end(
            search, folder, digest, progress, lambda row: progress.log(row.describe(many)), profiler, progress.log
        )
    if not processes.is_single:
        for target in search.targets:  # candidates are scored by all processes together
            search.evaluator.choose(target)
        if not processes.is_rank_zero:
            return []
        search.evaluator.processes = leave_group()
    search.data.stop_decoding()
    judgement = None
    if executor:
        evidence = Evidence(executor, digest, read_trainings(folder, digest))
        judge = judge_of(search, evidence, networks.target_sized, request.plugin, plan.baselines)
        judgement = _judge(judge, folder, progress)
    finish = Finish(request, networks, search, folder, progress, judgement)
    return _summarise(request, manifest, [finish(target) for target in search.targets], folder, progress)


def _judge(judge: Judge, folder: Path, progress: Progress) -> Judgement:
    """Train the finalists, each of which leaves a file in the run's folder; write ``finalists.json``."""
    for advance in judge.advances():
        advance.write(folder)
        progress(advance.stage, advance.done, advance.total)
    judgement = judge.judgement()
    write_json(folder / FINALISTS_FILE, judgement.record().to_json())
    progress.log(judgement.report())
    return judgement


def _executor(request: SearchRequest) -> Executor | None:
    """Return what trains the finalists; None without any. Raises HwnasError where it is not there, or has no work."""
    if request.recipe.finalists:
        return choose_executor(request.executor, gpu=request.recipe.compute != "cpu")
    if request.executor != "local":
        raise HwnasError("--executor trains finalists, and the search has none", f"add {ADD}, or leave it out")
    return None


def _load(request: SearchRequest, progress: Progress) -> TwoNetworks:
    """Load the images of both networks, and choose the networks."""
    data, target_data = load_data(request.data_spec, progress), None
    if request.target_data_spec:
        target_data = load_data(request.target_data_spec, progress)
    return choose_networks(request, data, target_data)


def _summarise(
    request: SearchRequest, manifest: Manifest, rows: list[SummaryRow], folder: Path, progress: Progress
) -> list[SummaryRow]:
    """Write ``summary.json`` and its pictures; verify the networks on request."""
    summary = Summary(targets=rows, finished=today(), tables=manifest.tables)
    write_json(folder / SUMMARY, summary.to_json())
    draw_run(folder, progress.log)
    if request.verify:
        verify_run(folder, None, progress)
    return read_summary(folder, f"search again with --out {quoted(folder)}").targets
