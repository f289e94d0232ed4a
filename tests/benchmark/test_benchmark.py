"""Ground truth: the accuracy table's reader against published facts, damaged files, searches that never see it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hwnas.benchmark.accuracy import NATS, NATS_DATA_SETS, AccuracyTable, read_accuracy
from hwnas.benchmark.collapse import collapse
from hwnas.benchmark.cost_meter import CostMeter
from hwnas.benchmark.objectives import cost_models
from hwnas.compute.device import available_cores
from hwnas.cost.build import build_metrics
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.files import read_json, shipped
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import SPACES, Setting, SizedSpace
from hwnas.spaces.encoding import decode, every_choice
from hwnas.tables.io import read_table
from support.benchmarks import search_here
from support.command import Run, assert_one_clear_line, hwnas_process, python_process
from support.paths import ROOT, SHARED

SPACE = SPACES["nasbench201"]
PUBLISHED = SHARED / "nb201_accuracy.csv.gz"
needs_accuracies = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not there")


@pytest.fixture(scope="module")
def published() -> AccuracyTable:
    return read_accuracy(str(PUBLISHED))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return gzip.decompress(PUBLISHED.read_bytes()).decode().splitlines()


@needs_accuracies
def test_the_published_table_is_read_as_published(published: AccuracyTable) -> None:
    """The optimum of all cells, as Dong & Yang (ICLR 2020) print it."""
    assert published.data_sets == ["cifar10", "cifar100", "imagenet16_120"]
    assert [len(values) for values in published.values.values()] == [15625] * 3
    assert [round(published.best(name), 2) for name in published.data_sets] == [94.37, 73.51, 47.31]


@needs_accuracies
def test_every_row_is_looked_up_by_its_own_name(published: AccuracyTable, lines: list[str]) -> None:
    header, *rows = (line.split(",") for line in lines)
    for text, *numbers in rows:
        cell = SPACE.parse(text)
        assert [published.accuracy(name, cell) for name in header[1:]] == [float(number) for number in numbers]


@needs_accuracies
def test_regret_is_against_the_best_within(published: AccuracyTable) -> None:
    choices = every_choice(SPACE)
    values = published.values["cifar100"]
    place = int(values.argmax())
    best = decode(SPACE, choices[place])
    assert published.regret("cifar100", best) == 0
    without = np.arange(len(values)) != place
    second = decode(SPACE, choices[int(np.argsort(values)[-2])])
    assert published.regret("cifar100", second) > 0
    assert published.regret("cifar100", second, without) == 0


@needs_accuracies
def test_plain_text_and_gzip_are_one_table(published: AccuracyTable, lines: list[str], tmp_path: Path) -> None:
    """Whatever the order of the rows and the ends of the lines; another number is another table."""
    plain = tmp_path / "accuracy.csv"
    plain.write_text("\r\n".join([lines[0], *reversed(lines[1:])]), newline="")
    assert read_accuracy(str(plain)).sha256 == published.sha256
    plain.write_text("\n".join([*lines[:-1], lines[-1].rsplit(",", 1)[0] + ",50"]))
    assert read_accuracy(str(plain)).sha256 != published.sha256


@needs_accuracies
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("arch,", "cell,", "begin with the columns arch"),
        ("cifar100,", "cifar10,", "has the column cifar10 twice"),
        ("cifar100,", "../cifar100,", "not a valid data set name"),
        (",85.863,", ",nan,", "'nan' is not a percentage"),
        (",85.863,", ",inf,", "'inf' is not a percentage"),
        (",85.863,", ",-1,", "'-1' is not a percentage"),
        (",85.863,", ",100.001,", "'100.001' is not a percentage"),
        (",85.863,", ",8_5,", "'8_5' is not a percentage"),
        (",85.863,", ",,", "'' is not a percentage"),
        (",85.863,", ",", "3 columns, not 4"),
        ("avg_pool_3x3~0|", "max_pool_3x3~0|", "not a NAS-Bench-201 cell"),
        (",85.863,", ',85"863,', "percentage|not valid CSV"),
    ],
)
def test_a_wrong_table_is_refused(lines: list[str], tmp_path: Path, old: str, new: str, says: str) -> None:
    file = tmp_path / "accuracy.csv"
    text = "\n".join(lines)
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(HwnasError, match=says):
        read_accuracy(str(file))


@needs_accuracies
def test_other_files_are_refused(lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, content: bytes, says: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HwnasError, match=says):
            read_accuracy(str(tmp_path / name))

    refused("empty.csv", b"", "begin with the columns arch")
    refused("header.csv", lines[0].encode(), "lacks 15,625 of 15,625 cells, such as .none~0")
    refused("plain.csv.gz", "\n".join(lines).encode(), "not a gzip file")
    refused("packed.csv", PUBLISHED.read_bytes(), "not a text file")
    refused("nul.csv", lines[0].encode() + b"\n\0,1,2,3", "not a NAS-Bench-201 cell")
    refused("quote.csv", lines[0].encode() + b'\n"', "not valid CSV")
    with pytest.raises(HwnasError, match="does not exist"):
        read_accuracy(str(tmp_path / "nothing.csv"))
    monkeypatch.setattr("hwnas.csv_files.MAX_BYTES", 1 << 20)
    refused("bomb.csv.gz", gzip.compress(bytes(2 << 20)), "more than 1 MiB")


@pytest.mark.slow
@needs_accuracies
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_table_that_lost_or_gained_rows_is_refused(lines: list[str], tmp_path: Path, data: st.DataObject) -> None:
    row = data.draw(st.integers(1, len(lines) - 1))
    other = data.draw(st.integers(1, len(lines) - 1).filter(lambda n: n != row))
    damaged = list(lines)
    kind = data.draw(st.sampled_from(["lost", "twice", "instead", "cut"]))
    if kind == "lost":
        del damaged[row]
    elif kind == "twice":
        damaged.insert(other, lines[row])
    elif kind == "instead":
        damaged[other] = lines[row]
    else:
        damaged[row:] = [lines[row][: data.draw(st.integers(0, len(lines[row]) - 1))]]
        if row == len(lines) - 1:  # the last row's last digits can be lost unseen
            damaged[row] = damaged[row].rsplit(",", 1)[0]
    file = tmp_path / "accuracy.csv"
    file.write_text("\n".join(damaged))
    with pytest.raises(HwnasError) as error:
        read_accuracy(str(file))
    assert str(file) in str(error.value)


@needs_accuracies
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(min_value=0), value=st.integers(1, 255), truncate=st.booleans())
@example(where=0, value=1, truncate=True)
def test_a_damaged_gzip_file_is_refused_or_read_the_same(
    published: AccuracyTable, tmp_path: Path, where: int, value: int, truncate: bool
) -> None:
    """A flipped byte of the header, such as the time, may change nothing; no byte may change a number."""
    content = bytearray(PUBLISHED.read_bytes())
    where %= len(content)
    if truncate:
        del content[where:]
    else:
        content[where] ^= value
    file = tmp_path / "accuracy.csv.gz"
    file.write_bytes(content)
    try:
        read = read_accuracy(str(file))
    except HwnasError:
        return
    assert not truncate
    assert read.sha256 == published.sha256


def write_nats(path: Path, values: dict[str, np.ndarray], cells: list[str], epochs: int = 200) -> None:
    """Write a file with nats_bench's own classes. Every eighth cell has two seeds, half a point above and below
    ``values``, the others have one.
    """
    api = pytest.importorskip("nats_bench")
    sets = {"cifar10": "ori-test", "cifar100": "x-test", "ImageNet16-120": "x-test"}
    infos = {}
    for index, cell in enumerate(cells):
        results = api.ArchResults(index, cell)
        for name, data_set in NATS_DATA_SETS.items():
            for seed, offset in ((777, 0.5), (888, -0.5)) if index % 8 == 0 else ((777, 0.0),):
                last = epochs - 1
                trial = api.ResultsCount(
                    data_set, None, {last: 100.0}, {last: 0.0}, 1.0, 1.0, {"arch_str": cell}, seed, epochs, None
                )
                trial.update_OLD_eval("x-valid", {last: 1.0}, {last: 0.0})
                # of cifar100 and ImageNet16-120, "ori-test" is validation and test together: another number
                trial.update_OLD_eval("ori-test", {last: 2.0}, {last: 0.0}) if data_set != "cifar10" else None
                trial.update_OLD_eval(sets[data_set], {last: values[name][index] + offset}, {last: 0.0})
                results.update(data_set, seed, trial)
        infos[index] = {str(epochs): results.state_dict()}
    content = {"meta_archs": cells, "arch2infos": infos, "evaluated_indexes": list(infos)}
    api.pickle_save(content, path.with_suffix(""), path.suffix)


@pytest.mark.slow
@needs_accuracies
def test_nats_bench_gives_the_same_accuracies(published: AccuracyTable, tmp_path: Path) -> None:
    """The published numbers, put into a benchmark of nats_bench and read back through it."""
    cells = [SPACE.format(decode(SPACE, choice)) for choice in every_choice(SPACE)]
    order = np.random.default_rng(0).permutation(len(cells))
    values = {name: numbers[order] for name, numbers in published.values.items()}
    file = tmp_path / "NATS.pickle.pbz2"
    write_nats(file, values, [cells[place] for place in order])
    read = read_accuracy(f"{NATS}{file}")
    assert read.data_sets == published.data_sets
    for name in read.data_sets:
        np.testing.assert_allclose(read.values[name], published.values[name], rtol=0, atol=1e-12)


@needs_accuracies
def test_incomplete_files_of_nats_bench_are_refused(published: AccuracyTable, tmp_path: Path) -> None:
    cells = [SPACE.format(decode(SPACE, choice)) for choice in every_choice(SPACE)[:3]]
    write_nats(tmp_path / "three.pickle.pbz2", dict(published.values), cells)
    write_nats(tmp_path / "short.pickle.pbz2", dict(published.values), cells, epochs=12)
    (tmp_path / "torn.pickle.pbz2").write_bytes((tmp_path / "three.pickle.pbz2").read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    for name, says in {
        "three.pickle.pbz2": "lacks 15,622 of 15,625 cells",
        "short.pickle.pbz2": "nats_bench cannot read",
        "torn.pickle.pbz2": "nats_bench cannot read",
        "folder": "nats_bench cannot read",
        "nothing": "does not exist",
    }.items():
        with pytest.raises(HwnasError, match=says):
            read_accuracy(f"{NATS}{tmp_path / name}")


def test_a_pickle_without_its_prefix_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    file = tmp_path / "accuracy.csv"
    file.write_bytes(pickle.dumps({"meta_archs": []}))

    def forbidden(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    with pytest.raises(HwnasError, match="not a text file"):
        read_accuracy(str(file))


def test_a_step_counts_once_however_often_a_search_is_killed(tmp_path: Path) -> None:
    """Two processes: the first is killed after step 5, with a line half written, the second begins at step 3."""
    file = tmp_path / "costs.jsonl"
    first = CostMeter(file)
    for step in (1, 2, 3, 3, 4, 5):  # 3 is the end of an epoch
        first.record(step)
    written = [json.loads(line) for line in file.read_text().splitlines()]
    with file.open("a") as torn:
        torn.write('{"step": 6, "wal')
    second = CostMeter(file)
    second.record(4)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3, 4]
    assert rows[:4] == written[:4]
    for name in ("wall_s", "processor_s", "peak_memory_mb"):
        assert rows[4][name] >= rows[3][name]
    ended = CostMeter(file).total(4)  # killed after its last step
    assert ended.wall_s > rows[4]["wall_s"]
    assert CostMeter(tmp_path / "new.jsonl").total(0).wall_s > 0
    with pytest.raises(HwnasError, match="has no line for step 9"):
        CostMeter(file).total(9)


def test_seconds_are_those_of_the_work(tmp_path: Path) -> None:
    """Sleeping takes time by the clock, and no processor."""
    meter = CostMeter(tmp_path / "costs.jsonl")
    time.sleep(0.2)
    slept = meter.total(0)
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    worked = meter.total(0)
    assert slept.wall_s >= 0.2 > slept.processor_s
    assert worked.processor_s - slept.processor_s >= 0.2


def test_memory_is_that_of_the_process_not_of_its_parent() -> None:
    child = (
        "from hwnas.benchmark.cost_meter import peak_memory_mb as p; "
        "own = p(); held = bytearray(50 << 20); print(own, p())"
    )
    parent = f"""
import subprocess, sys
held = bytearray(400 << 20)
print(subprocess.run([sys.executable, "-c", {child!r}], check=True, capture_output=True, text=True).stdout)
"""
    said = subprocess.run([sys.executable, "-c", parent], check=True, capture_output=True, text=True)
    before, after = map(float, said.stdout.split())
    assert 1 < before < 400
    assert after - before >= 45  # of 52.4 MB, some may have been free


def test_costs_without_a_table_are_those_of_the_real_network() -> None:
    setting = Setting(channels=4, depth=1, height=16, width=16)
    costs = cost_models(SizedSpace(SPACE, setting), None)
    for choice in every_choice(SPACE)[:: 15625 // 7]:
        cell = decode(SPACE, choice)
        counted = count_network(ChildNetwork(SizedSpace(SPACE, setting), cell))
        assert costs["params"].predict(cell) == counted.params
        assert costs["macs"].predict(cell) == counted.macs_conv_linear


def test_collapse_is_a_share_of_the_edges() -> None:
    cell = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert collapse(SPACE.parse(cell)) == {"skip_connect": 2 / 6, "without_parameters": 4 / 6}


SMALL = ("--data", "digits?size=16", "--channels", 4, "--cells", 1)
TWO_EPOCHS = ("--epochs", 2, "--jobs", max(2, available_cores()))


def bench(out: Path, *others: object, accuracy: Path = PUBLISHED) -> tuple[object, ...]:
    quick = () if "--recipe" in others else ("--method", "snas", "--recipe", "snas-short", "--seeds", "0,1")
    return ("benchmark", "nasbench201", "--accuracy", accuracy, *SMALL, *quick, *others, "--out", out)


def results(out: Path, *names: str) -> list[dict]:
    return [read_json(out / name / "result.json", "") for name in names]


def searches_in(folder: Path) -> list[int]:
    """The processes whose command names a folder below this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"hwnas.benchmark.worker" in command and str(folder).encode() in command:
            found.append(int(place.name))
    return found


HOOK = r"""
import os, sys
_log = os.open(os.path.join({folder!r}, f"{{os.getpid()}}.log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.write(_log, " ".join(sys.orig_argv).encode() + b"\n")
def _record(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "os.posix_spawn"):
        os.write(_log, repr(arguments).encode() + b"\n")
sys.addaudithook(_record)
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark of two searches, ``out``, on ``accuracies.csv.gz``. An audit hook in every process wrote to
    ``logs`` which files it opened, which folders it listed and which processes it started.
    """
    folder = tmp_path_factory.mktemp("benchmark")
    shutil.copy(PUBLISHED, folder / "accuracies.csv.gz")
    for name in ("logs", "site"):
        (folder / name).mkdir()
    (folder / "site" / "sitecustomize.py").write_text(HOOK.format(folder=str(folder / "logs")))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(folder / "site"), str(ROOT)]))
        process = python_process(
            "-m", "hwnas", *bench(folder / "out", *TWO_EPOCHS, accuracy=folder / "accuracies.csv.gz")
        )
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return folder


@needs_accuracies
@pytest.mark.end_to_end
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked for in /proc")
def test_an_interrupted_benchmark_resumes_bit_identical(run: Run, tmp_path: Path, watched: Path) -> None:
    """Interrupted by kill -9 in the first epoch and by Ctrl-C after it, with two searches at a time of one thread
    each. No search outlives its benchmark.
    """
    arguments = bench(out := tmp_path / "out", *TWO_EPOCHS, accuracy=watched / "accuracies.csv.gz")
    checkpoint, metrics = out / "snas/seed0/checkpoint.pt", out / "snas/seed0/metrics.jsonl"
    for begun, sent in ((checkpoint.exists, signal.SIGKILL), (lambda: metrics.stat().st_size > 0, signal.SIGINT)):
        process = hwnas_process(*arguments)
        while process.poll() is None and not begun():
            time.sleep(0.005)
        assert process.poll() is None
        process.send_signal(sent)
        output = process.communicate()[0]
        for _ in range(600):
            if not searches_in(out):
                break
            time.sleep(0.05)
        assert not searches_in(out)
        assert not (out / "snas/seed0/searched.json").exists()
        if sent == signal.SIGINT:
            assert process.returncode == 130
            assert "hwnas: interrupted" in output
            assert "Traceback" not in output
    last = run(*arguments)
    assert last.exit_code == 0, last.output
    names = ("snas/seed0", "snas/seed1")
    for name in names:
        assert (out / name / "metrics.jsonl").read_bytes() == (watched / "out" / name / "metrics.jsonl").read_bytes()
        rows = [json.loads(line) for line in (out / name / "costs.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows]
        per_epoch = len(load_data("digits?size=16").train) // 64
        assert sorted(set(steps)) == list(range(1, 2 * per_epoch + 1))
        assert steps == sorted(steps)
        assert len(steps) == 2 * per_epoch + 2
        for kind in ("wall_s", "processor_s"):
            seconds = [row[kind] for row in rows]
            assert seconds == sorted(seconds)
            assert read_json(out / name / "result.json", "")["search"][kind] >= seconds[-1]
    for ours, theirs in zip(results(out, *names), results(watched / "out", *names), strict=True):
        assert {**ours, "search": None} == {**theirs, "search": None}


@needs_accuracies
@pytest.mark.end_to_end
def test_no_search_reads_the_accuracies(watched: Path) -> None:
    """The benchmark's own process opens the table; the processes of its searches neither open it nor get its path."""
    hidden = watched / "accuracies.csv.gz"
    logs = [log.read_text() for log in (watched / "logs").iterdir()]
    searches = [text for text in logs if "hwnas.benchmark.worker" in text.splitlines()[0]]
    (benchmark,) = [text for text in logs if "benchmark nasbench201" in text.splitlines()[0]]
    assert f"('{hidden}', " in benchmark
    assert len(searches) == 2
    for text in searches:
        assert "manifest.json" in text
        assert "searched.json" in text
        assert hidden.name not in text
        assert "nb201_accuracy" not in text
    for file in (watched / "out").glob("*/*/*.json*"):
        assert hidden.name not in file.read_text()


@needs_accuracies
@pytest.mark.end_to_end
@pytest.mark.parametrize("budget", ["aggressive", "40%,70%-params"])
def test_a_search_within_a_budget_keeps_it(
    run: Run,
    tmp_path: Path,
    table_file: Path,
    published: AccuracyTable,
    budget: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And regret is against the best of the cells that keep it, found here one by one."""
    search_here(monkeypatch)
    out = tmp_path / "out"
    result = run(
        *bench(out, "--seeds", "0", "--epochs", 1, "--jobs", 2, "--table", table_file, "--budget", budget, "--json")
    )
    assert result.exit_code == 0, result.output
    setting = Setting(channels=4, depth=1, height=16, width=16)
    models = build_metrics(read_table(table_file), SizedSpace(SPACE, setting))
    summary = json.loads(result.stdout)
    limits = summary["budget"]["limits"]
    cells = [decode(SPACE, choice) for choice in every_choice(SPACE)]
    predicted = {metric: models[metric].predict_many(every_choice(SPACE)) for metric in limits}
    inside = [n for n in range(len(cells)) if all(predicted[metric][n] <= bound for metric, bound in limits.items())]
    assert summary["cells_within_budget"] == len(inside) < len(cells)
    at_random = summary["references"][0]
    for found in results(out, "snas/seed0"):
        cell = SPACE.parse(found["architecture"])
        for metric, bound in limits.items():
            assert models[metric].predict(cell) <= bound
            assert found["network"][metric] == models[metric].predict(cell)
        for name in published.data_sets:
            accuracies = [published.accuracy(name, cells[n]) for n in inside]
            assert found["accuracy"][name] == published.accuracy(name, cell)
            assert found["regret"][name] == max(accuracies) - found["accuracy"][name] >= 0
            assert at_random["accuracy"][name]["mean"] == pytest.approx(np.mean(accuracies))
            assert at_random["accuracy"][name]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert np.mean([sum(op == "skip_connect" for op in cells[n].cells[0]) / 6 for n in inside]) == pytest.approx(
        at_random["collapse"]["skip_connect"]["mean"]
    )


@needs_accuracies
@pytest.mark.end_to_end
def test_methods_are_compared(
    run: Run, tmp_path: Path, published: AccuracyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two recipes under names of their own, two seeds of each; asked again, nothing is searched twice."""
    search_here(monkeypatch)
    recipe = (shipped("configs") / "search" / "snas-short.yaml").read_text()
    (tmp_path / "usual.yaml").write_text(recipe)
    (tmp_path / "hasty.yaml").write_text(recipe.replace("lr: 0.05, lr_end: 0.02", "lr: 1.0, lr_end: 1.0"))
    assert (tmp_path / "hasty.yaml").read_text() != recipe
    out = tmp_path / "out"
    asked = ("--method", "usual", "--method", "hasty", "--recipe", tmp_path / "{method}.yaml", "--seeds", "3,1")
    first = run(*bench(out, *asked, "--epochs", 1, "--jobs", 2))
    assert first.exit_code == 0, first.output
    summary = read_json(out / "summary.json", "")
    rows = summary["methods"]
    assert {row["method"] for row in rows} == {"usual", "hasty"}
    assert rows[0]["regret"]["cifar10"]["mean"] <= rows[1]["regret"]["cifar10"]["mean"]
    for row in rows:
        own = results(out, *(f"{row['method']}/seed{seed}" for seed in (3, 1)))
        assert row["seeds"] == [3, 1] == [result["seed"] for result in own]
        assert row["epochs"] == 1
        for name in published.data_sets:
            for what in ("accuracy", "regret"):
                values = [result[what][name] for result in own]
                assert row[what][name]["mean"] == pytest.approx(np.mean(values))
                assert row[what][name]["std"] == pytest.approx(np.std(values, ddof=1))
        for result in own:
            assert result["search"]["processor_s"] > 0
            assert 50 < result["search"]["peak_memory_mb"] < 20_000
            assert 0 <= result["validation_accuracy"] <= 1
            lines = (out / row["method"] / f"seed{result['seed']}" / "metrics.jsonl").read_text().splitlines()
            assert json.loads(lines[-1])["architecture"] == result["architecture"]
            assert result["settings"]["recipe"]["seed"] == result["seed"]
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert "percentage points" in (out / "benchmark.svg").read_text()
    again = run(*bench(out, *asked, "--epochs", 1))
    assert "4 of 4 searches are already finished" in again.stderr
    assert {**read_json(out / "summary.json", ""), "finished": None} == {**summary, "finished": None}
    assert again.stdout == first.stdout
    other = run(*bench(out, *asked, "--epochs", 2))
    assert_one_clear_line(other, "usual/seed3", "other settings", "--out")


@pytest.mark.slow
@needs_accuracies
def test_inputs_that_do_not_fit_are_refused_before_any_search(run: Run, tmp_path: Path, table_file: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "half.csv.gz").write_bytes(PUBLISHED.read_bytes()[:50_000])
    refusals: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (bench(out, accuracy=tmp_path / "half.csv.gz"), ("half.csv.gz", "truncated")),
        (bench(out, "--budget", "mild"), ("--table and --budget",)),
        (bench(out, "--table", table_file), ("--table and --budget",)),
        (bench(out, "--table", table_file, "--budget", "1us"), ("cannot be met",)),
        (bench(out, "--seeds", "0,x"), ("seeds '0,x'",)),
        (bench(out, "--seeds", "0,0"), ("given twice",)),
        (bench(out, "--method", "snas"), ("given twice",)),
        (bench(out, "--method", "other"), ("2 methods", "{method}")),
        (bench(out, "--method", "../up", "--recipe", "snas-short"), ("not the name of a method",)),
        (bench(out, "--method", "other", "--recipe", "snas-short"), ("of method snas, not other",)),
        (bench(out, "--method", "snas", "--recipe", "none-such"), ("unknown recipe",)),
    ]
    for arguments, words in refusals:
        assert_one_clear_line(run(*arguments), *words)
        assert not list(tmp_path.glob("out/*/*/checkpoint.pt")), arguments


@needs_accuracies
@pytest.mark.end_to_end
def test_the_error_of_a_failed_search_names_it_and_the_reason(run: Run, tmp_path: Path, watched: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(watched / "out", out)
    (out / "snas/seed1/searched.json").unlink()
    (out / "snas/seed1/checkpoint.pt").write_bytes(b"nothing")
    again = run(*bench(out, *TWO_EPOCHS, accuracy=watched / "accuracies.csv.gz"))
    assert_one_clear_line(again, "snas, seed 1: checkpoint", "rm ")
