"""Jobs in processes of this machine and in this one: same bits, one clear error, no process left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from hwnas.compute import device
from hwnas.errors import HwnasError
from hwnas.jobs.choose import choose_executor
from hwnas.jobs.in_process import InProcess
from hwnas.jobs.local import LocalExecutor
from support.jobs import (
    CountedInput,
    UnreadableError,
    describe_process,
    ended,
    fail,
    interrupted,
    is_running,
    wait_for_file,
)
from support.torch_jobs import differing, make_images, train
from support.warm import WarmProcess


@pytest.mark.slow
def test_results_are_the_same_bits_however_many_run_at_a_time() -> None:
    seeds = {f"seed {seed}": seed for seed in (3, 1, 2)}
    torch.manual_seed(7)
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    here = dict(InProcess().run(train, make_images(), seeds))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.equal(here["seed 1"]["0.weight"], here["seed 2"]["0.weight"])
    there = dict(LocalExecutor(2, 1).run(train, make_images(), seeds))
    assert differing(here, there) == []
    assert all(weights["threads"] == 1 for weights in there.values())


def test_every_job_has_a_new_process_and_the_shared_input_is_sent_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    CountedInput.sent = 0
    shared = CountedInput(tmp_path / "received")
    results = dict(LocalExecutor(2, 3).run(describe_process, shared, {str(item): item for item in range(5)}))
    assert {name: result["item"] for name, result in results.items()} == {str(item): item for item in range(5)}
    assert len({result["process"] for result in results.values()} | {os.getpid()}) == 6
    assert {result["threads"] for result in results.values()} == {"3"}
    assert CountedInput.sent == 1
    assert shared.file.read_text() == "received\n"
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "job 4 prints" in printed.err
    assert ended([result["process"] for result in results.values()])


def test_results_arrive_as_jobs_end(tmp_path: Path) -> None:
    """Items start in their order. The last may end first, and then the one before it."""
    begun, ended = [], []
    for name, text in LocalExecutor(3, 1).stream(wait_for_file, tmp_path, {name: name for name in "abc"}):
        (begun if text == "begins" else ended).append(name)
        if len(begun) == 3:
            (tmp_path / "cba"[len(ended)] if len(ended) < 3 else tmp_path / "end").touch()
    assert sorted(begun) == ["a", "b", "c"]
    assert ended == ["c", "b", "a"]
    (tmp_path / "d").touch()
    assert list(LocalExecutor(1, 1).stream(wait_for_file, tmp_path, {"a": "a", "d": "d"})) == [
        *(("a", "begins"), ("a", "ends")),
        *(("d", "begins"), ("d", "ends")),
    ]
    assert list(LocalExecutor(1, 1).stream(wait_for_file, tmp_path, {})) == []


def test_an_error_stops_the_other_jobs_and_is_raised() -> None:
    """A HwnasError keeps its fix; an unexpected one its type and the traceback of the worker."""
    errors = {
        "user": HwnasError("no images", "add some"),
        "bug": KeyError("key"),
        "unreadable": ("one", "other"),
    }
    kinds = {"user": HwnasError, "bug": KeyError, "unreadable": RuntimeError}
    for name in errors:
        processes: list[int] = []
        jobs = LocalExecutor(2, 1).stream(fail, errors, {"waiting": "", f"the {name}": name})
        with pytest.raises(kinds[name]) as raised:
            processes.extend(process for _, process in jobs)
        if isinstance(raised.value, HwnasError):
            assert (raised.value.problem, raised.value.fix) == ("the user: no images", "add some")
        else:
            assert "in fail\n    raise error if" in raised.value.__notes__[0]
        assert ended(processes)


def test_a_killed_process_is_named_with_the_way_to_resume() -> None:
    processes: list[int] = []
    jobs = LocalExecutor(2, 1).stream(fail, {}, {"first": "", "last": "killed"})
    with pytest.raises(HwnasError, match=r"^last: its process was killed; run the same command again to resume"):
        processes.extend(process for _, process in jobs)
    assert ended(processes)


def test_closing_the_iterator_stops_the_jobs() -> None:
    jobs = LocalExecutor(1, 1).stream(fail, {}, {"waiting": ""})
    _, process = next(jobs)
    assert is_running(process)
    jobs.close()  # type: ignore[attr-defined]
    assert ended([process])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_job_outlives_the_process_that_asked_for_it(tmp_path: Path, sent: signal.Signals) -> None:
    """The asking process is a daemonic one of multiprocessing, which multiprocessing lets start no other."""
    asking = WarmProcess(interrupted, tmp_path)
    while len(list(tmp_path.iterdir())) < 2:
        assert asking.poll() is None, asking.communicate()
        time.sleep(0.005)
    processes = [int(file.name) for file in tmp_path.iterdir()]
    assert all(map(is_running, processes))
    asking.send_signal(sent)
    output = asking.communicate()[0]
    assert ended(processes)
    assert output == ("KeyboardInterrupt\n" if sent == signal.SIGINT else "")


def test_the_error_of_an_input_that_cannot_be_read_is_raised() -> None:
    with pytest.raises(TypeError, match="UnreadableError"):
        list(LocalExecutor(1, 1).run(fail, {"": UnreadableError("one", "other")}, {"one": "", "two": ""}))


def test_errors_in_this_process_are_named_too() -> None:
    jobs = InProcess().stream(fail, {"user": HwnasError("no images", "add some")}, {"the user": "user"})
    assert next(jobs) == ("the user", os.getpid())
    with pytest.raises(HwnasError, match=r"^the user: no images; add some$"):
        next(jobs)


def test_physical_cores_are_those_that_a_container_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight hyper-threads of four cores, six of them allowed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 6}, raising=False)
    monkeypatch.setattr(device, "CPUS", tmp_path)
    monkeypatch.setattr(device, "QUOTA", tmp_path / "cpu.max")
    assert device.physical_cores() == 6
    for processor in range(8):
        file = tmp_path / f"cpu{processor}/topology/thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{processor % 4},{processor % 4 + 4}\n")
    for quota, cores in (("max 100000", 3), ("250000 100000", 2), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(quota + "\n")
        assert device.physical_cores() == cores
        assert choose_executor("local").workers == cores


def test_the_executor_is_the_one_that_its_text_names() -> None:
    assert isinstance(choose_executor("local", 1), InProcess)
    assert isinstance(choose_executor("local", 1, separate=True), LocalExecutor)
    two = choose_executor("local", 2, threads=4)
    assert (type(two), two.workers, two.threads) == (LocalExecutor, 2, 4)
    with pytest.raises(HwnasError, match="unknown executor 'slurm'"):
        choose_executor("slurm")
