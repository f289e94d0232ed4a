"""The page of runs agrees with their files, works in a browser without network, and shows markup as text."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.report.answer import answer
from hwnas.report.run_content import read_run
from hwnas.report.table_section import HELD_OUT, table_section
from hwnas.search.choices import CHOICES
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import read_table, write_table
from support.chromium import Chromium
from support.command import Run, assert_one_clear_line, invoke
from support.few_digits import FEW_DIGITS
from support.pages import EVIL, SCRIPT, Page, check_pictures, check_tame, needs_browser, report
from support.tables import make_table

SPACE = get_space("nasbench201")
SETTING = Setting(channels=4, depth=1, height=16, width=16)
SHIPPED = Path(__file__).parents[2] / "latency_tables"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a tiny search for two budgets."""
    place = tmp_path_factory.mktemp("report")
    write_table(place / "board.json", make_table(SizedSpace(SPACE, SETTING)))
    small = ("--data", FEW_DIGITS, "--channels", "4", "--layers", "1", "--epochs", "3", "--child-epochs", "0")
    small = (*small, "--recipe", "snas-short", "--batch-size", "32")
    budgets = ("--budget", "mild", "--budget", "60%,30k-params")
    arguments = ("search", "--table", str(place / "board.json"), *small, *budgets, "--out", str(place / "first"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return place / "first"


@pytest.fixture(scope="module")
def page(searched: Path) -> Path:
    """Write the page of the search, which no test changes; its files are beside it, in ``report_files``."""
    out = searched.parent / "report.html"
    made = report(invoke, searched, out=out)
    assert {Path(file) for file in made["files"]} == {file for file in files_of(out).rglob("*") if file.is_file()}
    return out


def files_of(page: Path) -> Path:
    return page.with_name(f"{page.stem}_files")


@pytest.fixture
def run_folder(searched: Path, tmp_path: Path) -> Path:
    """Return a copy of the search that a test may change."""
    return Path(shutil.copytree(searched, tmp_path / "first"))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def give_probabilities(folder: Path) -> None:
    """Replace the probabilities of every row by random ones that differ clearly."""
    generator = np.random.default_rng(0)
    lines = lines_of(folder)
    for line in lines:
        line["probabilities"] = {"cell": generator.dirichlet(np.ones(5), size=6).round(6).tolist()}
    write_lines(folder, lines)


def take_probabilities(folder: Path) -> None:
    """Remove the probabilities, which older runs do not have."""
    lines = lines_of(folder)
    for line in lines:
        line.pop("probabilities", None)
    write_lines(folder, lines)


@pytest.mark.slow
def test_numbers_agree_with_the_files(page: Path, searched: Path) -> None:
    files = files_of(page)
    content = json.loads((files / "report.json").read_text())["runs"][0]
    lines = lines_of(searched)
    summary = json.loads((searched / "summary.json").read_text())["targets"]
    assert content["targets"] == summary
    assert content["manifest"] == json.loads((searched / "manifest.json").read_text())
    loss = json.loads((files / "loss.json").read_text())["data"]
    budgets = [target["budget"] for target in summary]
    assert {budget: loss[budget]["values"] for budget in budgets} == {
        budget: [line["train_loss"] for line in lines if line["budget"] == budget] for budget in budgets
    }
    learnt = json.loads((files / "1-mild-cell-probabilities.json").read_text())["data"]
    assert learnt["probabilities"] == [line["probabilities"]["cell"] for line in lines if line["budget"] == "mild"]
    points = json.loads((files / "pareto-1.json").read_text())["data"]
    assert [(point["latency_ms"], point["accuracy"]) for point in points] == [
        (target["predicted_ms"], target["accuracy"]) for target in summary
    ]


@pytest.mark.slow
def test_an_edge_is_explained_by_its_probability_cost_and_runner_up(run: Run, run_folder: Path, tmp_path: Path) -> None:
    give_probabilities(run_folder)
    report(run, run_folder, out=tmp_path / "report.html")
    content = json.loads((tmp_path / "report_files/report.json").read_text())["runs"][0]
    entries = read_table(run_folder / "table.json").entries
    last = [line for line in lines_of(run_folder) if line["budget"] == "mild"][-1]["probabilities"]["cell"]
    target = next(target for target in content["targets"] if target["budget"] == "mild")
    chosen = re.findall(r"([a-z_0-9]+)~\d", target["architecture"])
    sums = sum(entry.latency_ms for entry in entries if entry.op == "sum")
    for edge, op, row in zip(content["cells"]["mild"]["cell"], chosen, last, strict=True):
        assert edge["op"] == op
        assert edge["probability"] == row[SPACE.operations.index(op)]
        # In a table without corrections the cost is that of the operation and its addition in each of the three stages.
        alone = sum(entry.latency_ms for entry in entries if entry.op == op and entry.stride == 1)
        assert edge["cost_ms"]["board"] == pytest.approx(alone + sums if op != "none" else 0.0)
        others = {p: name for p, name in zip(row, SPACE.operations, strict=True) if name != op}
        assert edge["runner_up"]["op"] == others[max(others)]
        assert edge["runner_up"]["probability"] == max(others)


@pytest.mark.slow
def test_every_figure_is_written_as_svg_and_png(page: Path) -> None:
    names = check_pictures(files_of(page))
    assert {"pareto-1", "loss", "validation", "entropy", "over-budget", "lambda", "table-1"} <= names
    assert {"1-mild-cell-graph", "1-mild-cell-probabilities"} <= names


@pytest.mark.slow
def test_commands_reproduce_the_run(run: Run, page: Path, searched: Path, tmp_path: Path, monkeypatch: Any) -> None:
    content = json.loads((files_of(page) / "report.json").read_text())["runs"][0]
    program, *arguments = shlex.split(content["commands"][0])
    assert program == "hwnas"
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    again = tmp_path / "runs/first-again"
    assert read_run(again).manifest.digest == read_run(searched).manifest.digest
    assert lines_of(again) == lines_of(searched)


@pytest.mark.slow
def test_the_answer_is_the_most_accurate_network_that_keeps_its_budget(run_folder: Path) -> None:
    summary = json.loads((run_folder / "summary.json").read_text())
    first, second = summary["targets"]
    first.update(accuracy=0.9, measured_ms=1.0, measured_error_ms=0.1, kept=True)
    second.update(accuracy=0.95, measured_ms=9.0, measured_error_ms=0.1, kept=False)
    (run_folder / "summary.json").write_text(json.dumps(summary))
    assert answer(read_run(run_folder)) == (
        "2 networks found; timed on the device 1 keeps its limits; the network (mild) is right on 90.0% of the test "
        "images at 1 ± 0.1 ms (measured)."
    )
    second.update(kept=True)
    (run_folder / "summary.json").write_text(json.dumps(summary))
    assert "all keep their limits; the most accurate of these (60%,30k-params) is right on 95.0%" in answer(
        read_run(run_folder)
    )


@pytest.mark.slow
def test_a_run_without_probabilities_has_a_warning(run: Run, run_folder: Path, tmp_path: Path) -> None:
    take_probabilities(run_folder)
    report(run, run_folder, out=tmp_path / "old.html")
    assert "did not record the operations' probabilities" in Page((tmp_path / "old.html").read_text()).text
    assert not list((tmp_path / "old_files").glob("*-probabilities.svg"))
    give_probabilities(run_folder)
    report(run, run_folder, out=tmp_path / "new.html")
    assert "did not record" not in Page((tmp_path / "new.html").read_text()).text


LAZY = """
from hwnas.search.choices import register

@register("regulariser", "lazy")
class Lazy:
    def __call__(self, distribution, progress):
        skip = distribution.space.operations.index("skip_connect")
        return -100 * distribution.probabilities()["cell"][:, skip].sum()
"""


@pytest.mark.slow
def test_a_search_that_stopped_early_is_shown_with_the_reason(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has fewer epochs than its recipe, because all logits collapsed to skip_connect."""
    monkeypatch.setitem(CHOICES, "regulariser", dict(CHOICES["regulariser"]))
    write_table(tmp_path / "board.json", make_table(SizedSpace(SPACE, SETTING)))
    (tmp_path / "lazy.py").write_text(LAZY)
    recipe = "base: snas-short\nmost_skips: 0.5\nlogits_warm_up: 0.0\nregulariser: lazy\n"
    (tmp_path / "wary.yaml").write_text(recipe)
    small = ("--data", FEW_DIGITS, "--channels", 4, "--layers", 1, "--epochs", 9, "--child-epochs", 0)
    base = ("search", "--table", tmp_path / "board.json", "--recipe", tmp_path / "wary.yaml", *small)
    base = (*base, "--plugin", tmp_path / "lazy.py")
    result = run(*base, "--budget", "80%", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = lines_of(tmp_path / "run")
    assert len(lines) < 9
    assert lines[-1]["stopped"] in result.output
    report(run, tmp_path / "run", out=tmp_path / "report.html")
    assert lines[-1]["stopped"] in Page((tmp_path / "report.html").read_text()).text
    write_lines(tmp_path / "run", lines[:-1])
    assert_one_clear_line(run("report", tmp_path / "run", "--out", tmp_path / "two.html"), "cut off")


@pytest.mark.slow
def test_a_search_that_diverged_is_shown(run: Run, run_folder: Path, tmp_path: Path) -> None:
    lines = lines_of(run_folder)
    for line in lines[2:]:
        line["train_loss"] = float("nan")
    write_lines(run_folder, lines)
    report(run, run_folder, out=tmp_path / "report.html")
    loss = json.loads((tmp_path / "report_files/loss.json").read_text())["data"]
    assert loss["mild"]["values"] == [lines[0]["train_loss"], None, None]


@pytest.mark.slow
def test_several_runs_share_one_page(run: Run, run_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run_folder, tmp_path / "second"))
    report(run, run_folder, other, out=tmp_path / "report.html")
    points = json.loads((tmp_path / "report_files/pareto-1.json").read_text())["data"]
    assert [point["label"] for point in points] == [
        f"{name}, {budget}" for name in ("first", "second") for budget in ("mild", "60%,30k-params")
    ]
    page = Page((tmp_path / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert {link for link in links if link} <= {f"#{name}" for name in ids}
    assert_one_clear_line(run("report", run_folder, run_folder, "--out", tmp_path / "r.html"), "two .* called first")


@pytest.mark.slow
def test_a_network_for_two_devices_has_costs_and_a_point_on_both(run: Run, tmp_path: Path) -> None:
    for seed, name in enumerate(("board", "phone")):
        write_table(tmp_path / f"{name}.json", make_table(SizedSpace(SPACE, SETTING), seed))
    tables = ("--table", tmp_path / "board.json", "--table", tmp_path / "phone.json")
    small = ("--data", FEW_DIGITS, "--channels", 4, "--layers", 1, "--epochs", 1, "--child-epochs", 0)
    small = (*small, "--recipe", "snas-short", "--batch-size", 32)
    both = "80%@board,90%@phone"
    result = run("search", *tables, *small, "--budget", "mild", "--budget", both, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    report(run, tmp_path / "run", out=tmp_path / "report.html")
    files = tmp_path / "report_files"
    summary = json.loads((tmp_path / "run/summary.json").read_text())["targets"]
    there = {row["device"]: row for row in next(t for t in summary if t["budget"] == both)["devices"]}
    for number, device in enumerate(("board", "phone"), start=1):
        points = json.loads((files / f"pareto-{number}.json").read_text())["data"]
        assert [point["label"] for point in points] == [f"{device}: mild", both]
        assert points[1]["latency_ms"] == there[device]["predicted_ms"]
        assert points[1]["budget_ms"] == there[device]["budget_ms"]
    content = json.loads((files / "report.json").read_text())["runs"][0]["cells"]
    assert {tuple(edge["cost_ms"]) for edge in content[both]["cell"]} == {("board", "phone")}
    assert {tuple(edge["cost_ms"]) for edge in content["phone: mild"]["cell"]} == {("phone",)}
    assert {f"tables/{name}.json" for name in ("board", "phone")} <= {
        str(file.relative_to(files)) for file in files.rglob("*.json")
    }


def test_additivity_agrees_with_the_report_in_the_table() -> None:
    table = read_table(SHIPPED / "amd-epyc-zen5-vm-onnxruntime.json")
    section = table_section(table, "cpu", "")
    assert {proof.network for proof in section.proofs} == set(table.quality.additivity)
    for proof in section.proofs:
        assert proof.figure is not None
        held_out = [row for row in proof.figure.data if row["label"] == HELD_OUT]
        stated = table.quality.additivity[proof.network]
        assert len(held_out) == stated.networks
        errors = [abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in held_out]
        assert 100 * float(np.mean(errors)) == pytest.approx(stated.mape, rel=1e-6)
    (heat,) = section.maps
    assert sum(ms is not None for row in heat.data["latency_ms"] for ms in row) == len(table.entries)


@pytest.mark.parametrize("name", ["amd-epyc-zen5-vm-ncnn", "published-pixel3"])
def test_a_latency_table_has_a_page(run: Run, tmp_path: Path, name: str) -> None:
    result = run("table", "show", SHIPPED / f"{name}.json", "--html", tmp_path / "table.html")
    assert result.exit_code == 0, result.output
    table, page = read_table(SHIPPED / f"{name}.json"), Page((tmp_path / "table.html").read_text())
    proofs = [quality.describe() for quality in table.quality.additivity.values()]
    for words in (table.describe(), table.sha256, *proofs):
        assert words in page.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no finished search: it has no manifest.json"),
        (lambda folder: (folder / "summary.json").unlink(), "no finished search: it has no summary.json"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "metrics.jsonl does not exist"),
        (lambda folder: cut(folder / "metrics.jsonl", 50), r"line 6 of .*metrics.jsonl is cut off"),
        (lambda folder: write_lines(folder, lines_of(folder)[:-1]), "metrics.jsonl is cut off: .* 2 of 3 epochs"),
        (lambda folder: cut(folder / "summary.json", 50), "summary.json is not valid JSON"),
        (lambda folder: (folder / "summary.json").write_text('{"targets": []}'), "summary.json is incomplete"),
        (lambda folder: (folder / "summary.json").write_text('{"targets": [3]}'), "summary.json is incomplete"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json is incomplete"),
        (lambda folder: (folder / "table.json").unlink(), "table.json does not exist"),
        (lambda folder: (folder / "metrics.jsonl").write_text("[]\n"), "line 1 of .* is incomplete"),
        (
            lambda folder: write_lines(folder, [{**lines_of(folder)[0], "probabilities": {"cell": [[1.0]]}}]),
            "probabilities that are not of space nasbench201",
        ),
    ],
)  # fmt: skip
def test_an_unfinished_or_damaged_run_gives_one_clear_error(
    run: Run, run_folder: Path, tmp_path: Path, damage: Any, words: str
) -> None:
    damage(run_folder)
    assert_one_clear_line(run("report", run_folder, "--out", tmp_path / "report.html"), words)
    assert not (tmp_path / "report.html").exists()


def cut(file: Path, end: int) -> None:
    file.write_bytes(file.read_bytes()[:-end])


@pytest.mark.slow
def test_reports_do_not_import_torch(run_folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from hwnas.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'scipy.optimize', 'jinja2', 'matplotlib'} & set(sys.modules)))"
    )
    for arguments, loaded in (
        (["report", str(run_folder), "--out", str(tmp_path / "report.html")], "['jinja2']"),
        (["table", "show", str(run_folder / "table.json")], "[]"),
    ):
        line = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == loaded


def make_hostile(folder: Path) -> None:
    """Write markup, and characters that XML forbids, into the device's name, the budgets and the table's notes."""
    table = read_table(folder / "table.json")
    device = table.device.model_copy(update={"name": f"{SCRIPT}\x00\x0b\u202e", "os": EVIL})
    quality = table.quality.model_copy(update={"noise": [SCRIPT]})
    hostile = table.model_copy(update={"device": device, "quality": quality, "source": EVIL, "licence": SCRIPT})
    write_table(folder / "table.json", hostile)
    for name in ("manifest.json", "summary.json", "metrics.jsonl"):
        text = (folder / name).read_text()
        text = text.replace('"mild"', json.dumps(f"mild{SCRIPT}\x00")).replace('"board"', json.dumps(EVIL))
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def hostile(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a search whose files have markup in their names and texts."""
    folder = Path(shutil.copytree(searched, tmp_path_factory.mktemp("hostile") / "first"))
    give_probabilities(folder)
    make_hostile(folder)
    report(invoke, folder, out=folder.parent / "report.html")
    return folder.parent / "report.html"


@pytest.mark.slow
def test_markup_in_files_is_shown_as_text(hostile: Path) -> None:
    page = Page(hostile.read_text())
    assert SCRIPT in page.text
    assert EVIL in page.text
    check_tame(page)
    inside = {file.resolve() for file in files_of(hostile).rglob("*")}
    assert all(files_of(hostile).resolve() in file.parents for file in inside)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(page: Path, browser: Chromium, width: int) -> None:
    browser.open(page, width, media={"prefers-color-scheme": "light"})
    assert browser.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    shape = ".on-wide" if width > 760 else ".on-narrow"
    shown = "[...document.querySelectorAll('.target')].filter(t => t.offsetParent).map(t => t.id)"
    assert browser.evaluate(shown) == ["r1t1"]

    tip = "document.getElementById('tip')"
    assert browser.evaluate(f"{tip}.hidden")
    browser.hover(f'{shape} a[href="#r1t1"] path')
    assert browser.evaluate(f"{tip}.hidden") is False
    assert browser.evaluate(f"{tip}.textContent").startswith("mild\n")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.evaluate(f"{tip}.hidden")

    browser.click(f'{shape} a[href="#r1t2"] path')
    assert browser.evaluate(shown) == ["r1t2"]
    assert browser.evaluate("document.activeElement.id") == "r1t2"
    browser.evaluate(f"document.querySelector('{shape} a[href=\"#r1t1\"]').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate(shown) == ["r1t1"]

    paper = "getComputedStyle(document.body).backgroundColor"
    mark = f"getComputedStyle(document.querySelector('{shape} svg rect')).fill"
    light = browser.evaluate(paper), browser.evaluate(mark)
    browser.click("#theme")
    dark = browser.evaluate(paper), browser.evaluate(mark)
    assert light[0] == light[1] != dark[0] == dark[1]
    browser.open(page, width, media={"prefers-color-scheme": "light"})
    assert browser.evaluate(paper) == dark[0]  # it remembers
    browser.click("#theme")
    assert browser.evaluate(paper) == light[0]

    assert browser.complaints() == []
    assert browser.requests() == []


@pytest.mark.slow
@needs_browser
def test_the_page_follows_the_systems_theme_and_prints_all(page: Path, browser: Chromium) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(page, 1280, media={"prefers-color-scheme": "light"})
    light = browser.evaluate(background)
    browser.open(page, 1280, media={"prefers-color-scheme": "dark"})
    assert browser.evaluate(background) != light
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(background) == light
    assert browser.evaluate("[...document.querySelectorAll('.target')].every(t => t.offsetParent)")


@pytest.mark.slow
@needs_browser
def test_scripts_in_files_do_not_run(hostile: Path, browser: Chromium) -> None:
    browser.open(hostile, 1280)
    for target in ("#r1t2", "#r1t1"):
        browser.hover(f'.on-wide a[href="{target}"] path')
        browser.click(f'.on-wide a[href="{target}"] path')
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.evaluate("document.images.length + document.scripts.length") == 1
    assert browser.evaluate("document.body.innerText").count("window.hacked=1") > 3
    assert browser.complaints() == []
    assert browser.requests() == []
    # The content security policy alone stops a script that is in the page.
    browser.evaluate("{ const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
                     "document.body.append(s); }")  # fmt: skip
    assert browser.evaluate("typeof window.hacked") == "undefined"
