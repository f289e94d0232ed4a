"""Several processes reach the results of one. Run as a program, this file is one of these processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore

from hwnas.budgets.budget import parse_budget
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from hwnas.recipe import read_recipe
from hwnas.runs.request import SearchRequest, SearchSizes
from hwnas.runs.search import run_search
from hwnas.runs.train import train_run
from hwnas.search.methods import METHODS
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import SPACES, SizedSpace
from hwnas.tables.io import read_table, write_table
from hwnas.training.child import Trainer
from hwnas.training.processes import SINGLE_PROCESS, Processes, join_process_group, process_group
from hwnas.training.recipe import read_training
from support.command import Run
from support.paths import ROOT
from support.searches import COSTS, FEW, PREVIEWS, SMALL_SEARCH, unlike
from support.spaces import SMALL
from support.tables import make_table
from support.training import DATA, recipe_of, tiny_child

SEARCHES = [*(("nasbench201", method) for method in METHODS), ("darts", "entrannas-dst")]
STEPS = 2
STORES: list[TCPStore] = []


def searching(space: str, method: str, processes: Processes) -> Search:
    """Build a search in float64, where rounding errors are negligible, that trains everything from the start.

    15 images are shared unevenly.
    """
    changes = {
        "batch_size": 15,
        "logits_warm_up": 0.0,
        "penalty.warm_up": 0.0,
        "drop_path": 0.2,
        **({"learning": {"name": "reinforce", "samples": 2, "every": 2}} if method == "enas" else {}),
        **({"selection": {"name": "best_of", "samples": 2}} if method in ("enas", "random") else {}),
        **({"selection": {"name": "evolution", "population": 3, "generations": 2}} if method == "single-path" else {}),
    }
    recipe = read_recipe(f"{'short' if space == 'nasbench201' else space}/{method}", changes)
    goal = Objective("table", parse_budget("moderate", PREVIEWS[space]), COSTS[space])
    search = Search(SizedSpace(SPACES[space], SMALL[space]), [goal], FEW, recipe, processes)
    search.supernet.double()
    search.targets[0].distribution.double()
    return search


def some_steps(space: str, method: str, processes: Processes) -> dict[str, Any]:
    """Return the state after some steps, with the row of the epoch and the final architecture."""
    search = searching(space, method, processes)
    for _ in range(STEPS):
        search.take_step()
    state = {**search.state(), "sums": [dict(t.sums.state()) for t in search.targets]}
    search.supernet.float()  # as the images that judge it are; the state stays as it was
    (row,) = search.epoch_report()
    return {**state, "row": row.to_json(), "chosen": search.space.format(search.choose(search.targets[0]))}


def one_of_them(folder: Path, table: Path) -> None:
    """Run one process of the test: some steps of every search, a child's training, and a whole search in a folder."""
    with join_process_group():
        processes = process_group()
        states = {f"{space} {method}": some_steps(space, method, processes) for space, method in SEARCHES}
        torch.save(states, folder / f"{processes.rank}.pt")
        torch.save(a_child(processes), folder / f"child{processes.rank}.pt")
        rows = run_search(request_for(table), folder / f"run{processes.rank}", Progress(quiet=True))
        assert bool(rows) == processes.is_rank_zero
        if processes.is_rank_zero:
            shutil.copytree(folder / "run0", folder / "trained")
        processes.total(0)  # the others wait
        assert bool(trained(folder / "trained")) == processes.is_rank_zero


def a_child(processes: Processes) -> dict[str, Any]:
    """Return the state after one epoch of training a child with every option; 7 images are divided unevenly."""
    trainer = Trainer(tiny_child(), DATA, recipe_of(batch_size=7, ema=0.7, **{"optimizer.lr": 1e-3}), processes)
    while not trainer.history:
        trainer.take_step()
    return trainer.state()


def trained(run: Path) -> list[dict[str, Any]]:
    recipe = read_training("quick", {"epochs": 2, "batch_size": 99})
    return train_run(run, "quick", recipe, None, Progress(quiet=True))


def request_for(table: Path) -> SearchRequest:
    """Return a search whose search network is smaller than its target network."""
    recipe = read_recipe("snas-short", {"epochs": 2, "child.epochs": 0, "batch_size": 99})
    space, sizes = SPACES["nasbench201"], SMALL["nasbench201"]
    return SearchRequest(
        SizedSpace(space, sizes),
        {"table": read_table(table)},
        "digits?size=16",
        ["moderate"],
        recipe,
        verify=False,
        search_sizes=SearchSizes(channels=3),
    )


def started(*command: object, count: int = 2) -> list[subprocess.Popen[str]]:
    """Start processes with torchrun's environment, whose store outlives them."""
    STORES.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(STORES[-1].port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, **where, "PYTHONPATH": path, "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(count)
    ]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of two processes."""
    folder = tmp_path_factory.mktemp("together")
    write_table(folder / "table.json", make_table(SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"])))
    both = started(__file__, folder, folder / "table.json")
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    return folder


def far(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the paths at which two states differ by more than rounding in float64 (probabilities have six digits)."""
    if isinstance(one, torch.Tensor) and one.dtype.is_floating_point:
        return [] if torch.allclose(one, other, rtol=1e-6, atol=1e-9) else [path]
    if isinstance(one, float):
        return [] if one == pytest.approx(other, rel=1e-6, abs=2e-6 if "probabilities" in path else 1e-9) else [path]
    if isinstance(one, dict):
        assert list(one) == list(other)
        return [where for key in one for where in far(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        return [where for n, (a, b) in enumerate(zip(one, other, strict=True)) for where in far(a, b, f"{path}.{n}")]
    return unlike(one, other, path)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "method"), SEARCHES)
def test_two_processes_reach_the_state_of_one(together: Path, space: str, method: str) -> None:
    first, second = (torch.load(together / f"{rank}.pt")[f"{space} {method}"] for rank in range(2))
    assert unlike(first, second) == []
    alone = some_steps(space, method, SINGLE_PROCESS)
    start = searching(space, method, SINGLE_PROCESS).state()
    assert unlike(start["supernet"], alone["supernet"])  # it has moved
    assert far(alone, first) == []


@pytest.mark.slow
def test_two_processes_train_a_child_as_one_does(together: Path) -> None:
    """Compare in float32, after three steps."""
    first, second = (torch.load(together / f"child{rank}.pt") for rank in range(2))
    assert unlike(first, second) == []
    whole = a_child(SINGLE_PROCESS)
    assert first["history"][0]["loss"] == pytest.approx(whole["history"][0]["loss"], rel=1e-4)
    for part in ("child", "auxiliary", "average"):
        for name, tensor in whole[part].items():
            torch.testing.assert_close(first[part][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_two_processes_train_a_finished_search_in_place(together: Path, alone: Path) -> None:
    shutil.copytree(alone, together / "trained alone")
    (row,) = trained(together / "trained alone")
    (place,) = (together / "trained").glob("*/training.jsonl")
    history = [json.loads(line) for line in place.read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2]
    assert files_of(together / "trained") == files_of(together / "trained alone")
    # Two searches in float32 need not end in the same network, but each epoch must have learnt.
    assert 0.1 < history[-1]["loss"] < history[0]["loss"]
    (summary,) = json.loads((together / "trained" / "summary.json").read_text())["targets"]
    assert summary["validation_accuracy"] == history[-1]["validation_accuracy"]
    assert summary["child_epochs"] == row.child_epochs == 2


@pytest.fixture(scope="module")
def alone(together: Path) -> Path:
    """The folder of the same search by one process."""
    run_search(request_for(together / "table.json"), together / "alone", Progress(quiet=True))
    return together / "alone"


@pytest.mark.slow
def test_rank_0_alone_writes_the_files_of_one_process(together: Path, alone: Path) -> None:
    assert not (together / "run1").exists()
    assert files_of(together / "run0") == files_of(alone)
    assert_alike(metrics_of(together / "run0"), metrics_of(alone))


def assert_alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Check that two searches of two epochs agree, as far as float32 allows after many steps."""
    assert [row["step"] for row in one] == [row["step"] for row in other] == [10, 20]
    assert one[0]["train_loss"] == pytest.approx(other[0]["train_loss"], rel=1e-2)
    assert one[0]["expected_cost"] == pytest.approx(other[0]["expected_cost"], rel=1e-2)


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


SHORT_SEARCH = (*SMALL_SEARCH, "--search-channels", 3, "--epochs", 2, "--child-epochs", 0, "--batch-size", 99)


@pytest.mark.end_to_end
def test_a_failed_process_ends_all_and_the_search_resumes(run: Run, tmp_path: Path, alone: Path) -> None:
    """Kill one of torchrun's two processes, then interrupt one of two, then finish the search with a single process."""
    out = tmp_path / "run"
    command = ("-m", "hwnas", "search", "--table", alone / "table.json", *SHORT_SEARCH, "--out", out)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, command)]
    launcher = subprocess.Popen(torchrun, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(out / "checkpoint.pt", launcher)
    os.kill(worker_of(launcher.pid, rank=1), signal.SIGKILL)
    output = launcher.communicate()[0]
    assert launcher.returncode != 0
    assert output.count("hwnas: error: another process of this run has ended") == 1
    assert step_of(out) > 0

    before = (out / "checkpoint.pt").stat().st_mtime_ns
    both = started(*command)
    wait_for(out / "checkpoint.pt", both[0], newer_than=before)
    both[1].send_signal(signal.SIGINT)
    outputs = [both[1].communicate()[0], both[0].communicate()[0]]
    assert [both[1].returncode, both[0].returncode] == [130, 1]
    assert "".join(outputs).count("hwnas: ") == 1
    assert outputs[0] == "hwnas: interrupted; run the same command again to resume\n"
    assert step_of(out) < 20

    result = run(*command[2:])
    assert result.exit_code == 0, result.output
    assert_alike(metrics_of(out), metrics_of(alone))


def step_of(folder: Path) -> int:
    return int(torch.load(folder / "checkpoint.pt", weights_only=True)["state"]["step"])


def wait_for(file: Path, process: subprocess.Popen[str], newer_than: int = 0) -> None:
    while process.poll() is None and not (file.exists() and file.stat().st_mtime_ns > newer_than):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[0]


def worker_of(launcher: int, rank: int) -> int:
    """Return the process id of one of torchrun's processes."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.end_to_end
def test_an_error_of_all_processes_is_reported_once(table_file: Path) -> None:
    both = started("-m", "hwnas", "table", "show", table_file)
    while all(process.poll() is None for process in both):
        time.sleep(0.05)
    first = next(process for process in both if process.poll() is not None)
    for other in both:
        if other is not first:
            other.terminate()  # as torchrun does
    assert first.returncode == 2
    outputs = [process.communicate()[0] for process in both]
    assert "".join(outputs) == "hwnas: error: hwnas show runs in one process; start it without torchrun\n"


def test_a_batch_is_divided_evenly_and_completely() -> None:
    for count in (1, 2, 3, 7):
        for images in (7, 8, 64):
            shares = [range(images)[Processes(rank, count).share(images)] for rank in range(count)]
            assert [n for share in shares for n in share] == list(range(images))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(HwnasError, match="a batch of 15 images cannot be divided among 16 processes"):
        searching("nasbench201", "snas", Processes(0, 16))


if __name__ == "__main__":
    one_of_them(*map(Path, sys.argv[1:]))
