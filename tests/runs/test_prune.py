"""Pruned networks: within their budgets exactly, readable by every command, and resumed after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from hwnas.errors import HwnasError
from hwnas.export.network import file_network
from hwnas.export.timing import Measured, spec_of
from hwnas.files import sha256_of_file
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.runs.prune import prune_run
from hwnas.runs.prune_budget import parse_pruning_budget
from hwnas.runs.prune_latency import NarrowerNetwork, Stopwatch, within_latency
from hwnas.runs.read import read_networks
from hwnas.runs.verify import time_saved
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import read_table, write_table
from hwnas.training.recipe import read_training
from support.command import Run, assert_one_clear_line, invoke
from support.few_digits import FEW_DIGITS
from support.searches import FEW_SEARCH
from support.tables import make_table

SHORT = ("--mask-epochs", 2, "--epochs", 1)
SECONDS_OF_A_WEIGHT = 1e-5


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short search of nasbench201 at 4 channels, with a made-up table of this machine."""
    folder = tmp_path_factory.mktemp("searched")
    table = make_table(SizedSpace(get_space("nasbench201"), Setting(channels=4, depth=1, height=16, width=16)))
    device = table.device.model_copy(update={"fingerprint": ask(parse_device("cpu")).device.fingerprint})
    write_table(folder / "cpu.json", table.model_copy(update={"device": device}))
    options = ("--epochs", 1, "--child-epochs", 1, "--batch-size", 64, "--budget", "90%")
    result = invoke("search", "--table", folder / "cpu.json", *FEW_SEARCH, *options, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def finished(searched: Path, tmp_path: Path) -> Path:
    """A copy of the finished search that a test may change."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine take a time for a network that is proportional to the weights in its ONNX file."""

    def time_networks(networks: Mapping[str, Path], *others: Any) -> dict[str, Measured]:
        times = {name: 0.01 + SECONDS_OF_A_WEIGHT * weights_in(file) for name, file in networks.items()}
        return {name: Measured(ms, 1e-6, ms, 1.0) for name, ms in times.items()}

    monkeypatch.setattr("hwnas.runs.prune_latency.time_networks", time_networks)
    monkeypatch.setattr("hwnas.runs.verify.time_networks", time_networks)


def weights_in(file: Path) -> int:
    tensors = onnx.load(file).graph.initializer
    return sum(onnx.numpy_helper.to_array(t).size for t in tensors if len(t.dims) > 1)


@pytest.mark.end_to_end
@pytest.mark.usefixtures("simulated")
def test_a_network_is_pruned_to_half_its_macs(run: Run, finished: Path) -> None:
    target, folder = finished / "90pct", finished / "90pct" / "pruned-50pct-macs"
    before = {file.name: sha256_of_file(file) for file in target.iterdir() if file.is_file()}
    summary = (finished / "summary.json").read_bytes()
    result = run("prune", finished, "--budget", "50%-macs", "--distil", *SHORT, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    (whole,), (pruned,) = read_networks(target), read_networks(folder)
    image = torch.zeros(1, 3, 16, 16)
    counted, old = count(pruned.child(), image), count(whole.child(), image)
    assert (row["macs"], row["params"]) == (counted.macs_conv_linear, counted.params)
    assert (row["pruning"]["macs_before"], row["pruning"]["params_before"]) == (old.macs_conv_linear, old.params)
    assert 0.4 * old.macs_conv_linear < counted.macs_conv_linear <= 0.5 * old.macs_conv_linear
    assert (row["kept"], row["predicted_ms"], row["limits"]) == (True, None, {"macs": old.macs_conv_linear / 2})
    assert (row["child_epochs"], row["training"]["epochs"]) == (4, 1)
    assert row["training"]["settings"]["distillation"]["teacher"] == str(target)
    assert row["training"]["teacher_sha256"] == row["pruning"]["source_sha256"]
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        expected = pruned.child().eval()(images)
    torch.testing.assert_close(file_network(folder / "network.onnx")(images), expected, rtol=1e-3, atol=1e-4)
    # The network it comes from, and the summary of the run, are as they were.
    assert before == {file.name: sha256_of_file(file) for file in target.iterdir() if file.is_file()}
    assert summary == (finished / "summary.json").read_bytes()
    assert not list(folder.glob("masks-*"))
    again = run("prune", finished, "--budget", "50%-macs", "--distil", *SHORT, "--json")
    assert "it is not pruned again" in again.stderr
    assert json.loads(again.stdout)["targets"] == [row]


@pytest.mark.end_to_end
@pytest.mark.usefixtures("simulated")
def test_every_command_reads_a_pruned_network(run: Run, finished: Path) -> None:
    folder = finished / "90pct" / "pruned-60pct-macs-x2"
    pruned = run("prune", finished / "90pct", "--budget", "60%-macs", "--multiple", 2, *SHORT[:2], "--epochs", 0)
    assert pruned.exit_code == 0, pruned.output
    layers = json.loads((folder / "architecture.json").read_text())["pruning"]["layers"]
    assert all(width % 2 == 0 for reads, makes in layers.values() for width in (reads, makes) if width not in (3, 10))
    (row,) = json.loads(run("evaluate", folder, "--json").stdout)["targets"]
    assert row["onnx_accuracy"] == pytest.approx(row["torch_accuracy"], abs=0.02)
    (timed,) = json.loads(run("verify", folder, "--json").stdout)["targets"]
    assert (timed["kept"], timed["predicted_ms"]) == (True, None)
    assert "60%-macs" in run("verify", folder).stdout
    trained = run("train", folder, "--from-scratch", "--epochs", 1, "--json")
    assert trained.exit_code == 0, trained.output
    (row,) = json.loads(trained.stdout)["targets"]
    assert row["pruning"]["layers"] == layers
    assert_one_clear_line(run("train", folder, "--channels", 8, "--epochs", 1), "is pruned: its widths are of 4")
    assert_one_clear_line(run("prune", folder, "--budget", "10%-macs"), "already pruned; prune the one in .*90pct$")
    content = json.loads((folder / "architecture.json").read_text())
    content["pruning"]["layers"].popitem()
    (folder / "architecture.json").write_text(json.dumps(content))
    assert_one_clear_line(run("evaluate", folder), "has the widths of another network", "prune the network again")


@pytest.mark.end_to_end
@pytest.mark.usefixtures("simulated")
def test_a_network_is_pruned_to_a_share_of_its_latency(run: Run, finished: Path) -> None:
    result = run("prune", finished, "--budget", "70%", *SHORT)
    assert result.exit_code == 0, result.output
    folder = finished / "90pct" / "pruned-70pct"
    content = json.loads((folder / "architecture.json").read_text())
    assert "distillation" not in content["training"]["settings"]
    pruning = content["pruning"]
    whole = 0.01 + SECONDS_OF_A_WEIGHT * weights_in(finished / "90pct" / "network.onnx")
    assert pruning["measured_ms_before"] == pytest.approx(whole)
    timings = pruning["timings"]
    assert all(t["kept"] == (t["measured_ms"] <= 0.7 * whole) for t in timings)
    kept = max(t["measured_ms"] for t in timings if t["kept"])
    assert 0.01 + SECONDS_OF_A_WEIGHT * weights_in(folder / "network.onnx") == pytest.approx(kept)
    assert f"limit {0.7 * whole:.4g} ms: keeps its budget" in result.stdout
    assert_one_clear_line(run("prune", finished, "--budget", "0.0101ms", *SHORT), "the narrowest network takes")
    assert_one_clear_line(run("prune", finished, "--budget", "9ms", *SHORT), "leaves nothing to prune: the network has")


class Interrupted(Progress):
    """Raise KeyboardInterrupt at step 4 of learning the widths, or of the training after that."""

    def __init__(self, stage: str) -> None:
        super().__init__(quiet=True)
        self.stage = stage

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage.startswith(self.stage) and done == 4:
            raise KeyboardInterrupt


@pytest.mark.end_to_end
@pytest.mark.usefixtures("simulated")
def test_an_interrupted_pruning_ends_bit_identical(finished: Path, tmp_path: Path) -> None:
    recipe = read_training("quick", {"epochs": 2})
    other = Path(shutil.copytree(finished, tmp_path / "other"))

    def prune(run: Path, progress: Progress) -> None:
        prune_run(run, "70%", "quick", recipe, 2, 1, True, None, progress)

    for stage in ("widths", "training"):
        with pytest.raises(KeyboardInterrupt):
            prune(other, Interrupted(stage))
    for run in (finished, other):
        prune(run, Progress(quiet=True))
    for name in ("weights.safetensors", "network.onnx", "training.jsonl"):
        assert sha256_of_file(finished / "90pct/pruned-70pct" / name) == sha256_of_file(
            other / "90pct/pruned-70pct" / name
        )
    texts = [(run / "90pct/pruned-70pct/architecture.json").read_text() for run in (finished, other)]
    assert texts[0].replace(str(finished), "RUN") == texts[1].replace(str(other), "RUN")  # the teacher's folder


@pytest.mark.end_to_end
def test_what_cannot_be_pruned_is_refused_in_one_clear_line(run: Run, finished: Path) -> None:
    def refused(budget: str, *patterns: str) -> None:
        assert_one_clear_line(run("prune", finished, "--budget", budget), *patterns)

    refused("110%-macs", "leaves nothing to prune: the network has .* macs; give a smaller one")
    refused("1%-macs", r"is below the least width: the narrowest network has .* macs; give a larger one")
    refused("moderate", "cannot prune to budget 'moderate': a network is pruned to MACs or milliseconds; use 50%-macs")
    refused("2M-params", "a network is pruned to MACs or milliseconds")
    refused("50%-macs,70%", "several limits")
    refused("0%", "not above 0")
    int8 = finished / "table.json"
    table = read_table(int8)
    elsewhere = table.device.model_copy(update={"fingerprint": "another"})
    write_table(int8, table.model_copy(update={"device": elsewhere}))
    refused("70%", "not this machine; prune on that device, where widths are timed, or give a budget in MACs")
    runtime = table.runtime.model_copy(update={"precision": "int8"})
    write_table(int8, table.model_copy(update={"runtime": runtime}))
    refused("70%", "the table is of int8 networks.*; give a budget in MACs, such as 50%-macs")
    architecture = finished / "90pct" / "architecture.json"
    content = json.loads(architecture.read_text()) | {"trained": False, "data": FEW_DIGITS}
    architecture.write_text(json.dumps(content))
    refused("50%-macs", "is untrained: its weights are random; train it with")


@pytest.mark.parametrize(
    ("text", "metric", "amount", "relative"),
    [("50%-macs", "macs", 0.5, True), ("70%", "latency_ms", 0.7, True), ("120m-MACs", "macs", 120e6, False),
     ("4.5 ms", "latency_ms", 4.5, False), ("80%-latency", "latency_ms", 0.8, True)],
)  # fmt: skip
def test_budgets_of_pruned_networks_are_read(text: str, metric: str, amount: float, relative: bool) -> None:
    budget = parse_pruning_budget(text)
    assert (budget.metric.name, budget.relative) == (metric, relative)
    assert budget.amount == pytest.approx(amount)
    assert budget.resolve(1e9).limits == {metric: pytest.approx(amount * 1e9 if relative else amount)}


def narrower_network(limit: float) -> NarrowerNetwork | None:
    """Return a network of 100 to 1000 MACs, which stand for itself."""
    return NarrowerNetwork(int(limit), int(limit)) if limit >= 100 else None  # type: ignore[arg-type]


LEAST = NarrowerNetwork(100, 100)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.35, 0.7, 0.95])
def test_widths_are_found_for_a_latency_that_is_not_proportional_to_macs(power: float, share: float) -> None:
    """The latency is 1 ms and a power of the MACs."""

    def time(children: Sequence[Any]) -> list[tuple[float, float]]:
        return [(1 + (child / 1000) ** power, 0.0) for child in children]

    bound = share * 2.0
    lines: list[str] = []
    if bound < time([100])[0][0]:
        with pytest.raises(HwnasError, match="the narrowest network takes"):
            within_latency(narrower_network, time, 1000, LEAST, bound, lines.append)
        return
    found, timings = within_latency(narrower_network, time, 1000, LEAST, bound, lines.append)
    assert time([found.child])[0][0] <= bound
    assert time([found.macs + 900 / 49 + 1])[0][0] > bound
    assert found.macs == max(timing.macs for timing in timings if timing.kept)
    assert len({timing.macs for timing in timings}) == len(timings) == len(lines) <= 13


def test_a_wider_network_is_found_behind_a_slower_one() -> None:
    """Networks of 300 to 500 MACs are slow, as those of a width that a processor pads."""
    slow = range(300, 500)

    def time(children: Sequence[Any]) -> list[tuple[float, float]]:
        return [(child * (3.0 if child in slow else 1.0), 0.0) for child in children]

    found, _ = within_latency(narrower_network, time, 1000, LEAST, 700.0, lambda line: None)
    assert 680 <= found.macs <= 700


def test_networks_are_timed_once_and_beside_the_whole_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine takes three times as long in the second run, so the narrower network's 1.5 ms are 0.5 ms."""
    (saved,) = read_networks(finished)
    runs = [[1.0], [3.0, 1.5]]
    whole, narrow = saved.child(), ChildNetwork(saved.sized.resized(channels=2), saved.architecture, prune=True)

    def timed(stopwatch: Stopwatch, children: Sequence[ChildNetwork]) -> list[Measured]:
        latencies = runs.pop(0)
        assert len(latencies) == len(children)
        return [Measured(ms, ms / 10, ms, 1.0) for ms in latencies]

    monkeypatch.setattr(Stopwatch, "_time", timed)
    for _ in range(2):  # the second reads the file
        stopwatch = Stopwatch(saved, tmp_path / "latencies.json", Progress(quiet=True))
        assert stopwatch.whole_ms == 1.0
        assert [tuple(found) for found in stopwatch.time([narrow, whole])] == [
            pytest.approx((0.5, 0.05)),
            pytest.approx((1.0, 0.1)),
        ]
    assert not runs


def test_networks_in_folders_of_one_name_are_timed_each(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pruned networks of two targets are."""

    def time_networks(files: Mapping[str, Path], *others: Any) -> dict[str, Measured]:
        return {name: Measured(ms, 0.0, ms, 1.0) for ms, name in enumerate(files, 1)}

    monkeypatch.setattr("hwnas.runs.verify.time_networks", time_networks)
    networks = [*read_networks(finished), *read_networks(Path(shutil.copytree(finished, tmp_path / "other")))]
    (device,) = networks[0].tables
    found = time_saved(networks, device, spec_of(networks[0].tables[device]), Progress(quiet=True))
    assert [found[network.folder].latency_ms for network in networks] == [1.0, 2.0]


@pytest.mark.end_to_end
def test_a_network_for_two_devices_is_pruned_in_macs(run: Run, tmp_path: Path) -> None:
    sized = SizedSpace(get_space("nasbench201"), Setting(channels=4, depth=1, height=16, width=16))
    tables: list[object] = []
    for seed, name in enumerate(("phone", "server")):
        write_table(tmp_path / f"{name}.json", make_table(sized, seed))
        tables += ["--table", tmp_path / f"{name}.json"]
    short = ("--epochs", 1, "--child-epochs", 1, "--batch-size", 64, "--budget", "90%@phone,90%@server")
    searched = run("search", *tables, *FEW_SEARCH, *short, "--out", tmp_path / "run")
    assert searched.exit_code == 0, searched.output
    result = run("prune", tmp_path / "run", "--budget", "50%-macs", "--mask-epochs", 1, "--epochs", 0, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    assert row["macs"] <= row["pruning"]["macs_before"] / 2
