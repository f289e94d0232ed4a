"""Several processes reach the results of one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore, TCPStore

from hwnas.errors import HwnasError
from hwnas.progress import Progress
from hwnas.runs.search import run_search
from hwnas.spaces import SPACES, SizedSpace
from hwnas.tables.io import write_table
from hwnas.training.processes import SINGLE_PROCESS, Processes, wait_for_all
from support.command import Run
from support.distributed import SEARCHES, a_child, do_share, request_for, searching, some_steps, trained
from support.searches import SMALL_SEARCH, unlike
from support.spaces import SMALL
from support.tables import make_table
from support.warm import WarmProcess, run_hwnas, run_torchrun

pytestmark = pytest.mark.alone  # processes that wait for each other need a processor each

STORES: list[TCPStore] = []
STEPS_OF_AN_EPOCH = 10
PATIENCE_S = 60  # for what takes milliseconds
ENDED = re.compile(
    r"hwnas: error: another process of this run has ended \(.+\); "
    "start all of them again: the same command resumes from the last checkpoint"
)


def started(work: Callable[..., None], *arguments: object) -> list[WarmProcess]:
    """Start two processes with torchrun's environment, whose store outlives them."""
    STORES.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(STORES[-1].port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    environment = {**where, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))
    return [WarmProcess(work, *arguments, variables={**environment, **rank}) for rank in ranks]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of two processes."""
    folder = tmp_path_factory.mktemp("together")
    write_table(folder / "table.json", make_table(SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"])))
    both = started(do_share, folder, folder / "table.json")
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


def assert_alike(one: list[dict[str, Any]], other: list[dict[str, Any]], epochs: int = 2) -> None:
    """Check that two searches agree, as far as float32 allows after many steps."""
    steps = [STEPS_OF_AN_EPOCH * (epoch + 1) for epoch in range(epochs)]
    assert [row["step"] for row in one] == [row["step"] for row in other] == steps
    assert one[0]["train_loss"] == pytest.approx(other[0]["train_loss"], rel=1e-2)
    assert one[0]["expected_cost"] == pytest.approx(other[0]["expected_cost"], rel=1e-2)


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


EPOCHS = 6  # of the search whose processes are killed
PLAIN_SEARCH = ("--precision", "float32", "--finalists", 0)  # the processes of torchrun are new ones
KILLED_SEARCH = (
    *(*SMALL_SEARCH, *PLAIN_SEARCH, "--search-channels", 3),
    *("--epochs", EPOCHS, "--child-epochs", 0, "--batch-size", 99),
)


@pytest.mark.end_to_end
def test_a_failed_process_ends_all_and_the_search_resumes(run: Run, tmp_path: Path, alone: Path) -> None:
    """Kill one of torchrun's two processes, then one of two without torchrun, then interrupt one; finish the search
    with a single process.
    """
    out = tmp_path / "run"
    checkpoint = out / "checkpoint.pt"
    command = [str(word) for word in ("search", "--table", alone / "table.json", *KILLED_SEARCH, "--out", out)]
    launcher = WarmProcess(run_torchrun, "--nproc-per-node", "2", "-m", "hwnas", *command)
    wait_for(checkpoint, launcher)
    os.kill(worker_of(launcher.pid, rank=1), signal.SIGKILL)
    output = launcher.communicate()[0]
    assert launcher.returncode not in (0, None)
    assert "Signal 9 (SIGKILL) received" in output  # torchrun's own report
    # torchrun ends rank 0, often before it can report anything
    assert all(ENDED.fullmatch(line) for line in output.splitlines() if "hwnas: " in line), output
    assert output.count("hwnas: ") <= 1
    assert 0 < step_of(out) < EPOCHS * STEPS_OF_AN_EPOCH

    before = checkpoint.stat().st_mtime_ns
    both = started(run_hwnas, *command)
    wait_for(checkpoint, both[0], newer_than=before)
    both[1].send_signal(signal.SIGKILL)
    output = both[0].communicate()[0]
    assert both[0].returncode == 2
    (line,) = [line for line in output.splitlines() if "hwnas: " in line]
    assert ENDED.fullmatch(line), output
    assert step_of(out) < EPOCHS * STEPS_OF_AN_EPOCH

    before = checkpoint.stat().st_mtime_ns
    both = started(run_hwnas, *command)
    wait_for(checkpoint, both[0], newer_than=before)
    both[1].send_signal(signal.SIGINT)
    outputs = [both[1].communicate()[0], both[0].communicate()[0]]
    assert [both[1].returncode, both[0].returncode] == [130, 1]
    assert "".join(outputs).count("hwnas: ") == 1
    assert outputs[0] == "hwnas: interrupted; run the same command again to resume\n"
    assert step_of(out) < EPOCHS * STEPS_OF_AN_EPOCH

    result = run(*command)
    assert result.exit_code == 0, result.output
    run_search(request_for(alone / "table.json", EPOCHS), tmp_path / "whole", Progress(quiet=True))
    assert_alike(metrics_of(out), metrics_of(tmp_path / "whole"), EPOCHS)


def step_of(folder: Path) -> int:
    return int(torch.load(folder / "checkpoint.pt", weights_only=True)["state"]["step"])


def wait_for(file: Path, process: WarmProcess, newer_than: int = 0) -> None:
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
    both = started(run_hwnas, "table", "show", str(table_file))
    while all(process.poll() is None for process in both):
        time.sleep(0.05)
    first = next(process for process in both if process.poll() is not None)
    for other in both:
        if other is not first:
            other.send_signal(signal.SIGTERM)  # as torchrun does
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


def test_processes_end_together() -> None:
    """Rank 0 works on alone for a while; the others end with it, as NCCL's groups must."""
    store, order = HashStore(), []

    def end(rank: int) -> None:
        wait_for_all(store, 3)
        order.append(rank)

    others = [Thread(target=end, args=(rank,), daemon=True) for rank in (1, 2)]
    for thread in others:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while store.add("finished", 0) < 2:
        assert time.monotonic() < deadline, "the others have not said that they wait"
        time.sleep(0.001)
    assert order == []
    others.append(Thread(target=end, args=(0,), daemon=True))
    others[-1].start()
    for thread in others:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_of_a_shared_norm_ask_for_no_missing_statistics(
    affine: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU torch's kernel for channels last refuses missing statistics, and computes empty ones."""
    norm = nn.BatchNorm2d(3, affine=affine).double()
    alone = deepcopy(norm)
    group = Processes(0, 2)
    group.share_norms(norm)
    group.sizes = [4]
    monkeypatch.setattr(group, "gather", lambda mine: mine[None])
    monkeypatch.setattr(group, "_sum", lambda mine: mine)
    given: list[bool] = []
    original = torch.ops.aten.native_batch_norm_backward

    def watched(*arguments: Any) -> Any:
        given.extend(value is None for value in arguments[5:7])
        return original(*arguments)

    monkeypatch.setattr(torch.ops.aten, "native_batch_norm_backward", watched)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64).contiguous(memory_format=layout)
    gradients = []
    for module in (norm, alone):
        leaf = x.clone().requires_grad_()
        (module(leaf) ** 3).sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in module.parameters())])
    assert given == [False, False]
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected)
