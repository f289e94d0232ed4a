"""Jobs on a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hwnas.benchmark.benchmark import search_all
from hwnas.benchmark.plan import BenchmarkPlan, prepare_runs
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.jobs import cluster
from hwnas.jobs.choose import choose_executor
from hwnas.jobs.in_process import InProcess
from hwnas.progress import Progress
from hwnas.spaces import SPACES, SizedSpace
from support.command import python_process
from support.jobs import CountedInput, describe_process, ended, fail
from support.paths import ROOT
from support.searches import unlike
from support.torch_jobs import differing, make_images, train, train_after

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.alone]  # two nodes of two workers each
SMALL = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a cluster of two nodes with one processor each, which ``--executor ray`` finds."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        nodes = Cluster(initialize_head=True, head_node_args=SMALL)
        nodes.add_node(**SMALL)
        patched.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_cluster_that_does_not_answer_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for text in ("ray", "ray://127.0.0.1:1"):
        with pytest.raises(HwnasError, match=rf"no Ray cluster answers --executor {text}: Connection refused; start"):
            choose_executor(text)


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for text in ("ray", "ray://head:10001"):
        with pytest.raises(HwnasError, match=rf"--executor {text} needs ray, .*pip install 'hwnas\[cluster\]'"):
            choose_executor(text)
    for text in ("ray://head", "ray://:1", "Ray", "ray:head"):
        with pytest.raises(HwnasError, match=f"unknown executor '{text}'; write local, ray or ray://HOST:PORT"):
            choose_executor(text)


def test_every_job_has_a_new_process_and_the_shared_input_is_sent_once(
    nodes: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And a GPU where jobs ask for one: Ray takes the word of the two nodes that each has one."""
    executor = choose_executor("ray", gpu=True)
    assert (executor.workers, executor.threads) == (2, 1)
    CountedInput.sent = 0
    items = {str(item): item for item in range(3)}
    results = dict(executor.run(describe_process, CountedInput(tmp_path / "received"), items))
    assert {name: result["item"] for name, result in results.items()} == items
    assert len({result["process"] for result in results.values()} | {os.getpid()}) == 4
    assert {(result["threads"], result["gpus"]) for result in results.values()} == {("1", "0")}
    assert CountedInput.sent == 1
    assert capfd.readouterr().out == ""


def test_an_error_stops_the_other_jobs_and_is_raised(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HwnasError of a job keeps its fix, an unexpected one its type; a process that is lost too often has another."""
    monkeypatch.setattr(cluster, "MAX_RETRIES", 0)
    processes: list[int] = []
    errors = {"user": HwnasError("no images", "add some"), "bug": KeyError("key")}
    for item, kind, says in (
        ("user", HwnasError, "^the user: no images; add some$"),
        ("bug", KeyError, "key"),
        ("killed", HwnasError, "^the killed: its machine or process was lost .*; run the same command again to resume"),
    ):
        jobs = choose_executor("ray").stream(fail, errors, {"waiting": "", f"the {item}": item})
        with pytest.raises(kind, match=says) as raised:
            processes.extend(process for _, process in jobs)
        if item == "bug":
            assert "raise error if" in raised.value.__notes__[0]
    assert ended(processes)


def test_a_machine_without_the_same_code_is_named(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_here")
    module.here = lambda shared, item: item  # type: ignore[attr-defined]
    module.here.__module__, module.here.__qualname__ = "only_here", "here"
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(HwnasError, match=r"^one: a machine of the cluster cannot read the job: .*only_here.*; install"):
        list(choose_executor("ray").run(module.here, 0, {"one": 1}))
    monkeypatch.setattr(cluster, "describe_build", lambda: {"hwnas": "0.0 (0)", "torch": "0"})
    with pytest.raises(
        HwnasError, match=r"^one: a machine of the cluster has hwnas \S+ \(\w+\), and this one 0.0 \(0\);"
    ):
        list(choose_executor("ray").run(describe_process, 0, {"one": 1}))


def test_a_benchmark_on_a_cluster_finds_the_cell_of_one_on_this_machine(nodes: Any, tmp_path: Path) -> None:
    sized = SizedSpace.named(SPACES["nasbench201"], channels=2, depth=1)
    plan = BenchmarkPlan(["snas"], [0], "digits?size=8", sized, "snas-short", {"epochs": 1, "batch_size": 256})
    with Progress(quiet=True) as progress:
        prepared = prepare_runs(plan, tmp_path, 1, progress)
        (there,) = prepared.runs
        here = replace(there, folder=tmp_path / "here")
        shutil.copytree(there.folder, here.folder)
        search_all(prepared, choose_executor("ray"), progress)
        search_all(replace(prepared, runs=[here]), InProcess(), progress)
    assert (there.folder / "metrics.jsonl").read_bytes() == (here.folder / "metrics.jsonl").read_bytes()
    states = [torch.load(run.folder / "checkpoint.pt", weights_only=True)["state"] for run in (there, here)]
    assert unlike(*states) == []
    found, expected = (read_json(run.folder / "searched.json", "") for run in (there, here))
    assert {**found, "search": None} == {**expected, "search": None}
    assert found["search"]["processor_s"] > 0


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_client_of_ray_connects_from_outside(nodes: Any, tmp_path: Path) -> None:
    """Results of a job arrive together when it ends. The client's server is started as a head node starts it."""
    ray.shutdown()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = ["-m", "ray.util.client.server", f"--address={nodes.address}", "--host=127.0.0.1", f"--port={port}"]
    with python_process(*command, "--mode=specific-server") as server:
        try:
            while not answers(port):
                assert server.poll() is None, server.communicate()
                time.sleep(0.05)
            executor = choose_executor(f"ray://127.0.0.1:{port}")
            assert executor.workers == 2
            errors = {"user": HwnasError("no images", "add some")}
            ((_, result),) = executor.run(describe_process, CountedInput(tmp_path / "received"), {"one": 1})
            assert result["gpus"] == ""
            with pytest.raises(HwnasError, match=r"^the user: no images; add some$"):
                list(executor.stream(fail, errors, {"the user": "user"}))
        finally:
            ray.shutdown()
            server.terminate()


def test_a_killed_machine_loses_nothing_and_changes_no_bit(
    nodes: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is killed while each of the two machines runs a job, and a third waits."""
    images, seeds = make_images(), {f"seed {seed}": seed for seed in (3, 1, 2)}
    begun, weights = [], {}
    for name, found in choose_executor("ray").stream(train_after, (tmp_path / "go", images), seeds):
        if found:
            weights[name] = found
            continue
        begun.append(name)
        if len(begun) == 2:
            (machine,) = nodes.worker_nodes
            nodes.remove_node(machine, allow_graceful=False)
            (tmp_path / "go").touch()
    assert sorted(begun) == sorted(seeds)
    assert differing(weights, dict(InProcess().run(train, images, seeds))) == []
    printed = capfd.readouterr()
    assert "retr" in printed.err
    assert printed.out == ""
