"""The page of a benchmark agrees with its files, and its command reproduces the benchmark."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import read_table, write_table
from support.benchmarks import search_here
from support.chromium import Chromium
from support.command import Run, assert_one_clear_line
from support.pages import EVIL, SCRIPT, Page, check_pictures, check_tame, needs_browser, report
from support.paths import SHARED
from support.tables import make_table

SPACE = get_space("nasbench201")
SIZED = SizedSpace(SPACE, Setting(channels=4, depth=1, height=16, width=16))
RECORDED = Path(__file__).parents[2] / "benchmarks/results/nasbench201"
PUBLISHED = SHARED / "nb201_accuracy.csv.gz"
needs_accuracies = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not there")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a tiny benchmark: two methods, one seed each, within a budget."""
    place = tmp_path_factory.mktemp("benchmark")
    write_table(place / "board.json", make_table(SIZED))
    small = ("--data", "digits?size=16", "--channels", "4", "--cells", "1", "--epochs", "1", "--seeds", "3")
    methods = ("--method", "snas", "--method", "drnas", "--recipe", "short/{method}", "--jobs", "2")
    budget = ("--table", str(place / "board.json"), "--budget", "60%,40k-params")
    arguments = ("benchmark", "nasbench201", "--accuracy", str(PUBLISHED), *small, *methods, *budget)
    with pytest.MonkeyPatch.context() as patched:
        search_here(patched)
        result = CliRunner().invoke(app, [*arguments, "--out", str(place / "bench")])
    assert result.exit_code == 0, result.output
    return place / "bench"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Return a copy of the recorded benchmark that a test may change."""
    return Path(shutil.copytree(RECORDED, tmp_path / "nasbench201"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def change(path: Path, changed: Callable[[Any], Any]) -> None:
    """Change a JSON file; ``changed`` returns the new content or changes it in place."""
    content = read(path)
    path.write_text(json.dumps(changed(content) or content))


def results_of(folder: Path) -> list[dict[str, Any]]:
    """Return the results in the order of the summary."""
    found = {(row["method"], row["seed"]): row for row in read(folder / "results.json")}
    return [found[row["method"], seed] for row in read(folder / "summary.json")["methods"] for seed in row["seeds"]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of the recorded benchmark, which no test changes."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    result = CliRunner().invoke(app, ["report", str(RECORDED), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    files = out.with_name("report_files")
    assert {Path(file) for file in json.loads(result.stdout)["files"]} == {f for f in files.rglob("*") if f.is_file()}
    return out


@pytest.mark.slow
def test_numbers_agree_with_the_files(page: Path) -> None:
    files = page.with_name("report_files")
    page_content, summary = read(files / "report.json")["benchmark"], read(RECORDED / "summary.json")
    results = results_of(RECORDED)
    assert page_content["summary"] == summary
    assert page_content["results"] == results
    for name in summary["data_sets"]:
        drawn = read(files / f"regret-{name}.json")["data"]
        assert [row["value"] for row in drawn["seeds"]] == [result["regret"][name] for result in results]
        assert {row["label"]: row["value"] for row in drawn["means"]} == {
            row["method"]: pytest.approx(row["regret"][name]["mean"]) for row in summary["methods"]
        }
        assert drawn["random_cell"] == summary["references"][0]["regret"][name]["mean"]
    for number, cost in enumerate(("processor_s", "peak_memory_mb"), start=1):
        for name, drawn in read(files / f"cost-{number}.json")["data"]["data_sets"].items():
            assert [(row["x"], row["y"]) for row in drawn["seeds"]] == [
                (result["search"][cost], result["accuracy"][name]) for result in results
            ]
    for figure, share in (("skip-connect", "skip_connect"), ("without-parameters", "without_parameters")):
        drawn = read(files / f"{figure}.json")["data"]
        assert [row["value"] for row in drawn["seeds"]] == [result["collapse"][share] for result in results]
    for result in results:
        drawn = read(files / f"{result['method']}-{result['seed']}-cell.json")["data"]
        assert [edge["op"] for edge in drawn] == re.findall(r"([a-z_0-9]+)~\d", result["architecture"])
    assert page.stat().st_size < 5_000_000


def rows_of(text: str, label: str) -> list[list[str]]:
    """Return the texts of a table."""
    table = text.partition(f'aria-label="{label}"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, flags=re.DOTALL)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows]


@pytest.mark.slow
def test_tables_and_answer_agree_with_the_files(page: Path) -> None:
    text, summary = page.read_text(), read(RECORDED / "summary.json")
    regrets: dict[str, list[float]] = {}
    for result in results_of(RECORDED):
        regrets.setdefault(result["method"], []).append(result["regret"]["cifar10"])
    spreads = {
        method: f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" for method, values in regrets.items()
    }
    head, *rows = rows_of(text, "Every method")
    place = head.index("cifar10 %") + 1
    assert {row[0]: row[place] for row in rows[:-2]} == spreads
    assert [row[0] for row in rows[-2:]] == ["a random cell", "the best cell"]
    head, *rows = rows_of(text, "Every cell")
    assert [row[head.index("cifar100 %")] for row in rows] == [
        f"{result['accuracy']['cifar100']:.2f}" for result in results_of(RECORDED)
    ]
    best = min(regrets, key=lambda method: statistics.fmean(regrets[method]))
    at_random = summary["references"][0]["regret"]["cifar10"]["mean"]
    better = sum(statistics.fmean(values) < at_random for values in regrets.values())
    answer = read(page.with_name("report_files") / "report.json")["benchmark"]["answer"]
    assert answer in Page(text).text
    assert f"of {len(regrets)} methods {best} finds the best cells: {spreads[best]} percentage points below" in answer
    assert (
        f"a random cell is {at_random:.2f} below on average, and {better} of the methods do better than that" in answer
    )
    assert "There was no budget" in text


@pytest.mark.slow
@needs_accuracies
def test_a_benchmark_within_a_budget_shows_which_cells_keep_it(run: Run, judged: Path, tmp_path: Path) -> None:
    report(run, judged, out=tmp_path / "report.html")
    text, files = (tmp_path / "report.html").read_text(), tmp_path / "report_files"
    summary, page_content = read(judged / "summary.json"), read(tmp_path / "report_files/report.json")["benchmark"]
    assert "2 of the 2 cells found keep the budget, as predicted" in page_content["answer"]
    assert f"best of {summary['cells_within_budget']:,} cells within 60%,40k-params" in page_content["answer"]
    head, *rows = rows_of(text, "Every cell")
    assert [row[head.index("kept")] for row in rows] == ["yes"] * 2
    assert "table-1" in check_pictures(files)
    entries = read_table(judged / "snas/seed3/table.json").entries
    sums = sum(entry.latency_ms for entry in entries if entry.op == "sum")
    for edge in page_content["cells"][
        "snas, seed 3"
    ]:  # a cell a stage: the operation in each of them, and its addition
        alone = sum(entry.latency_ms for entry in entries if entry.op == edge["op"] and entry.stride == 1)
        assert list(edge["cost_ms"].values()) == [pytest.approx(alone + sums if edge["op"] != "none" else 0.0)]
    assert {search["started"] for search in page_content["manifest"]["searches"]} == {
        read(judged / f"{name}/seed3/manifest.json")["started"] for name in ("snas", "drnas")
    }


def record(folder: Path, out: Path) -> Path:
    """Write a benchmark in the form that ``benchmarks/results`` has."""
    out.mkdir()
    shutil.copy(folder / "summary.json", out)
    results = [read(path) for path in sorted(folder.glob("*/seed*/result.json"))]
    (out / "results.json").write_text(json.dumps(results))
    return out


@pytest.mark.slow
@needs_accuracies
def test_a_cell_over_the_budget_is_marked(run: Run, judged: Path, tmp_path: Path) -> None:
    folder = record(judged, tmp_path / "bench")
    limit = max(result["network"]["params"] for result in results_of(folder)) - 1
    change(folder / "summary.json", lambda summary: summary["budget"]["limits"].update(params=limit))

    def tighter(results: list[dict[str, Any]]) -> None:
        """Also make them results of an older version, which do not say whether a cell keeps its budget."""
        for result in results:
            result["settings"]["budget"]["limits"]["params"] = limit
            for name in ("target", "costs", "limits", "kept", "share"):
                del result[name]

    change(folder / "results.json", tighter)
    report(run, folder, out=tmp_path / "report.html")
    head, *rows = rows_of((tmp_path / "report.html").read_text(), "Every cell")
    kept = [result["network"]["params"] <= limit for result in results_of(folder)]
    assert not all(kept)
    assert [row[head.index("kept")] for row in rows] == ["yes" if one else "NO" for one in kept]
    assert f"{sum(kept) or 'none'} of the 2 cells found keep" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@needs_accuracies
def test_command_reproduces_the_benchmark(run: Run, judged: Path, tmp_path: Path) -> None:
    """With the benchmark's own folder, the command finds that every search is finished."""
    bench = Path(shutil.copytree(judged, tmp_path / "bench"))
    report(run, bench, out=tmp_path / "report.html")
    (line,) = read(tmp_path / "report_files/report.json")["benchmark"]["commands"]
    program, *arguments = shlex.split(line)
    assert program == "hwnas"
    before = read(bench / "summary.json")
    result = run(*(f"--accuracy={PUBLISHED}" if one.startswith("--accuracy") else
                   f"--out={bench}" if one.startswith("--out") else one for one in arguments))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 of 2 searches are already finished" in result.output
    assert {**read(bench / "summary.json"), "finished": ""} == {**before, "finished": ""}
    for place in bench.glob("*/seed*"):
        assert (place / "result.json").read_bytes() == (judged / place.relative_to(bench) / "result.json").read_bytes()


def keep_one(folder: Path) -> dict[str, Any]:
    """Reduce a recorded benchmark to one method and one seed, without standard deviations, and return its result."""
    (result,) = [row for row in read(folder / "results.json") if (row["method"], row["seed"]) == ("snas", 1)]
    (folder / "results.json").write_text(json.dumps([result]))

    def alone(summary: dict[str, Any]) -> None:
        (row,) = [row for row in summary["methods"] if row["method"] == "snas"]
        row["seeds"] = [1]
        for what in ("accuracy", "regret"):
            row[what] = {name: {"mean": value, "std": None} for name, value in result[what].items()}
        summary["methods"] = [row]

    change(folder / "summary.json", alone)
    return result


@pytest.mark.slow
def test_every_figure_is_written_as_svg_and_png(run: Run, recorded: Path, tmp_path: Path) -> None:
    result = keep_one(recorded)
    report(run, recorded, out=tmp_path / "page.html")
    assert check_pictures(tmp_path / "page_files") == {
        "regret-cifar10", "regret-cifar100", "regret-imagenet16_120", "cost-1", "cost-2", "skip-connect",
        "without-parameters", "snas-1-cell",
    }  # fmt: skip
    text = Page((tmp_path / "page.html").read_text()).text
    assert f"On cifar10 snas finds cells: {result['regret']['cifar10']:.2f} percentage points below" in text


def unlink(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(name: str, changed: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda folder: change(folder / name, changed)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unlink("summary.json"), "a benchmark that has not ended: it has no summary.json"),
        (edit("summary.json", lambda s: {**s, "methods": []}), r"summary.json is incomplete \(methods"),
        (edit("summary.json", lambda s: {**s, "references": s["references"][1:]}), "a random cell is missing"),
        (edit("summary.json", lambda s: {**s, "data_sets": ["cifar10"]}), "are not of the data sets"),
        (edit("summary.json", lambda s: s["methods"][0].update(method="../x")), "summary.json is incomplete .*method"),
        (edit("summary.json", lambda s: s["methods"][0]["regret"]["cifar10"].update(mean=0.1)), "the mean regret of"),
        (edit("summary.json", lambda s: {**s, "accuracy_sha256": "0"}), "differ in the accuracy table"),
        (edit("summary.json", lambda s: {**s, "data": "digits"}), "differ in data or budget"),
        (edit("results.json", lambda r: r[:-1]), "not of the same methods, seeds and targets"),
        (edit("results.json", lambda r: [*r, r[0]]), "not of the same methods, seeds and targets"),
        (edit("results.json", lambda r: {"all": r}), "is no list of results"),
        (edit("results.json", lambda r: [{}, *r[1:]]), "result 1 of .*results.json is incomplete"),
        (edit("results.json", lambda r: [{**r[0], "architecture": "|none~0|"}, *r[1:]]), "architecture|cell"),
        (edit("results.json", lambda r: r[0]["settings"]["setting"].update(channels=9)), "differ in the settings"),
        (edit("results.json", lambda r: r[0]["settings"]["recipe"].update(epochs=1)), "differ in the recipe of"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "holds both a run and a benchmark"),
    ],
)  # fmt: skip
def test_an_incomplete_benchmark_gives_one_clear_error(
    run: Run, recorded: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(recorded)
    assert_one_clear_line(run("report", recorded, "--out", tmp_path / "report.html"), words)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@needs_accuracies
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unlink("summary.json"), "a benchmark that has not ended: it has no summary.json"),
        (unlink("snas/seed3/result.json"), "snas/seed3/result.json does not exist"),
        (edit("snas/seed3/manifest.json", lambda m: {**m, "digest": "0"}), "not of the search of its manifest.json"),
        (edit("snas/seed3/result.json", lambda r: {**r, "method": "drnas"}), "not of the search of its manifest.json"),
        (edit("snas/seed3/result.json", lambda r: {**r, "network": {}}), r"incomplete \(network.latency_ms\)"),
        (lambda f: write_table(f / "snas/seed3/table.json", make_table(SIZED, 1)), "is not the latency table"),
    ],
)  # fmt: skip
def test_a_damaged_search_gives_one_clear_error(
    run: Run, judged: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    bench = Path(shutil.copytree(judged, tmp_path / "bench"))
    damage(bench)
    assert_one_clear_line(run("report", bench, "--out", tmp_path / "report.html"), words)


def test_a_page_is_about_runs_or_one_benchmark(run: Run, recorded: Path, tmp_path: Path) -> None:
    for other in (RECORDED, tmp_path):
        result = run("report", other, recorded, "--out", tmp_path / "report.html")
        assert_one_clear_line(result, "is a benchmark: a page is about one benchmark, or about runs")


@pytest.mark.slow
def test_the_report_of_a_benchmark_does_not_import_torch(recorded: Path, tmp_path: Path) -> None:
    keep_one(recorded)
    program = (
        "import sys; from hwnas.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'scipy.optimize', 'jinja2', 'matplotlib'} & set(sys.modules)))"
    )
    line = [sys.executable, "-c", program, "report", str(recorded), "--out", str(tmp_path / "report.html")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['jinja2']"


def make_hostile(folder: Path) -> None:
    """Write markup into every text of a benchmark."""

    def settings(content: dict[str, Any]) -> None:
        content.update(data=f"{EVIL}\x00", budget={"text": SCRIPT, "limits": {"params": 50_000.0}})

    def hostile(results: list[dict[str, Any]]) -> None:
        for result in results:
            settings(result["settings"])
            result["settings"]["data_fingerprint"] = EVIL
            result["settings"]["recipe"]["epochs"] = SCRIPT
            result["machine"].update(name=EVIL, os=SCRIPT)
            result["torch"] = f"{SCRIPT}\u202e"
            result["network"][EVIL] = 1.0

    change(folder / "summary.json", lambda summary: (settings(summary), summary.update(finished=SCRIPT))[0])
    change(folder / "results.json", hostile)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a benchmark with markup in its texts."""
    place = tmp_path_factory.mktemp("hostile")
    shutil.copytree(RECORDED, place / "bench")
    make_hostile(place / "bench")
    result = CliRunner().invoke(app, ["report", str(place / "bench"), "--out", str(place / "report.html")])
    assert result.exit_code == 0, result.output
    return place / "report.html"


@pytest.mark.slow
def test_markup_in_files_is_shown_as_text(hostile: Path) -> None:
    page = Page(hostile.read_text())
    assert SCRIPT in page.text
    assert EVIL in page.text
    check_tame(page)
    assert {file.name for file in hostile.parent.iterdir()} == {"bench", "report.html", "report_files"}


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(page: Path, browser: Chromium, width: int) -> None:
    first = results_of(RECORDED)[0]
    browser.open(page, width, media={"prefers-color-scheme": "light"})
    assert browser.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    shown = "[...document.querySelectorAll('.target')].filter(t => t.offsetParent).map(t => t.id)"
    assert browser.evaluate(shown) == [f"{first['method']}-{first['seed']}"]

    tip, mark = "document.getElementById('tip')", '#regret a[href="#snas-2"]'
    browser.hover(f"{mark} path")
    assert browser.evaluate(f"{tip}.textContent").startswith("snas, seed 2\nregret on cifar10 ")
    drawn = "[...{}.querySelectorAll('svg g[aria-label]')].map(g => g.getAttribute('aria-label'))"
    in_tip, in_page = drawn.format(tip), drawn.format("document.querySelector('#snas-2 .cell-graph')")
    assert browser.evaluate(in_tip) == browser.evaluate(in_page) != []
    browser.click(f"{mark} path")
    assert browser.evaluate(shown) == ["snas-2"]
    assert browser.evaluate("document.activeElement.id") == "snas-2"
    browser.click('.tabs a[href="#random-0"]')
    assert browser.evaluate(shown) == ["random-0"]
    browser.evaluate(f"document.querySelector('{mark}').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate(shown) == ["snas-2"]
    browser.click('a.pick[href="#random-1"]')
    assert browser.evaluate(shown) == ["random-1"]
    reached = "[...document.querySelectorAll('svg.figure a')].filter(a => a.tabIndex >= 0).length"
    assert browser.evaluate(reached) == len(results_of(RECORDED))  # every search once

    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("[...document.querySelectorAll('.target')].every(t => t.offsetParent)")
    assert browser.complaints() == []
    assert browser.requests() == []


@pytest.mark.slow
@needs_browser
def test_scripts_in_files_do_not_run(hostile: Path, browser: Chromium) -> None:
    browser.open(hostile, 1280)
    browser.hover('#regret a[href="#snas-2"] path')
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.evaluate("document.images.length + document.scripts.length") == 1
    assert browser.complaints() == []
    assert browser.requests() == []
