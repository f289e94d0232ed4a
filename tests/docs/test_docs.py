"""Every block of every documentation page does what the page says; the site is complete and works from disk."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.blocks import ROOT, Block, PageError, Reader, agrees, blocks_of, shell, warm_hwnas
from support.chromium import Chromium, find_chromium

SPEC = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
assert SPEC
assert SPEC.loader
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / page for page in hooks.OUTSIDE)]
TIMES = re.compile(r"hwnas (verify|demo|table check (?!.*--contents))|--verify|make demo")


def times(page: Path) -> bool:
    """Return whether a command of a page has to keep a budget on this machine, which noise disturbs."""
    run = (block for block in blocks_of(page) if block.language in ("sh", "console", "set-up"))
    steps = ((block, block.shortened(command), shown) for block in run for command, shown in block.steps())
    return any(
        TIMES.search(line) and (shown is not None or not (1 in block.exit_codes or "|| test $? = 1" in line))
        for block, command, shown in steps
        for line in command.replace("\\\n", " ").splitlines()
    )


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the variables of the shell at the start; ``IMAGES`` is a folder of digits."""
    folder = tmp_path_factory.mktemp("warm")
    with warm_hwnas(folder) as found:
        done = shell(f'python "{ROOT}/tests/support/stand_ins/images.py" images 16', folder, found)
        assert done.returncode == 0, done.stderr
        yield {**found, "IMAGES": str(folder / "images")}


@pytest.mark.documentation
@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.alone if times(page) else ()) for page in PAGES],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_page_does_what_it_says(
    page: Path, tmp_path: Path, variables: dict[str, str], pieces: Path, request: pytest.FixtureRequest
) -> None:
    if re.search(r"stand_ins/phone(?!\.json)", page.read_text(encoding="utf-8")) and not (
        find_chromium() and (ROOT / "node_modules/onnxruntime-web").exists()
    ):
        pytest.skip("there is no Chromium or no onnxruntime-web here: make browser")
    folder = tmp_path / "folder"
    folder.mkdir()
    if not times(page):
        variables = {**variables, "SHORT_TIMINGS": str(pieces)}
    if "$MEASURED" in page.read_text(encoding="utf-8"):
        variables = {**variables, "MEASURED": str(request.getfixturevalue("measured"))}
    Reader(folder, tmp_path / "state", variables).read(page)


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr("support.blocks.ROOT", tmp_path)
    (tmp_path / "folder").mkdir()
    return Reader(tmp_path / "folder", tmp_path / "state", {})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("```\nls\n```\n", "the fence says ''"),
        ("```bash\nls\n```\n", "the fence says 'bash'"),
        ("~~~sh title=x y\nls\n~~~\n", "the fence says"),
        ("- a list\n\n  ```shell\n  ls\n  ```\n", "the fence says 'shell'"),
        ("A command:\n\n    $ ls\n", "indented block"),
        ("```text\n$ rm -r x\n```\n", "commands in a text block"),
        ("```text\nhwnas demo\n```\n", "commands in a text block"),
        ("```sh\ntrue\nfalse\ntrue\n```\n", "exit code 1"),
        ("```sh\nfalse | true\n```\n", "exit code 1"),
        ("```console\n$ echo one\ntwo\n```\n", "the page shows"),
        ("```console\n$ echo one\n```\n", "the page shows"),
        ("```console\none\n$ echo one\n```\n", "begins with a line"),
        ("```console\n$ echo 12 ms\n13 ms\n```\n", "the page shows"),
        ("<!-- as tested\nnumbers vary\n-->\n```console\n$ echo 12 ms\n13 s\n```\n", "the page shows"),
        ("```python\nassert False\n```\n", "exit code 1"),
        ('```python title="a.py"\nx = 1\n```\n', "no command uses it"),
        ("<!-- as tested\n1 => 2\n-->\n```sh\ntrue\n```\n", "'1' is to be replaced"),
        ("<!-- as tested\nskip\n-->\n```sh\ntrue\n```\n", "unknown rule"),
        ("<!-- as tested\nnumbers vary\n-->\n", "without a block"),
        ("<!-- setup\nls\n-->\n", "looks like a set-up"),
        ("<!-- set-up\nfalse\n-->\n", "exit code 1"),
    ],
)
def test_pages_that_break_a_rule_are_refused(reader: Reader, tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(PageError, match=word):
        reader.read(write(tmp_path, text))


def test_yaml_and_json_are_parsed(reader: Reader, tmp_path: Path) -> None:
    for text in ("```yaml\na: [\n```\n", '```json\n{"a": }\n```\n', "```python\ndef\n```\n"):
        with pytest.raises(Exception, match=r"expected|Expecting|invalid"):
            reader.read(write(tmp_path, text))


def test_blocks_run_in_order_in_one_shell(reader: Reader, tmp_path: Path) -> None:
    reader.read(
        write(
            tmp_path,
            "<!-- set-up\nexport WORD=hidden\n-->\n"
            '```python title="mine.py"\nA = 1\n```\n'
            '```python title="mine.py"\nB = 2\n```\n'
            "```console\n$ python -c 'import mine; print(mine.A + mine.B)'\n3\n$ echo \\\n  $WORD\nhidden\n```\n"
            "<!-- as tested\nmuch => little\nnumbers vary\n-->\n"
            "```console\n$ printf 'much  1.5 ms\\n\\nb\\nc'\nlittle 20 ms\n…\nc\n```\n"
            "- a list\n\n  ```sh\n  test $WORD = hidden && touch done\n  ```\n",
        )
    )
    assert (tmp_path / "folder/done").exists()


def test_shown_output_matches_printed_output(reader: Reader) -> None:
    table = ["a     b", "────  ──", "x  1.5 ms"]
    assert agrees(["a b", "─ ─", "x 1.5 ms"], table, False)
    assert not agrees(["a b", "─ ─", "x 1.6 ms"], table, False)
    assert agrees(["a b", "─ ─", "x 1,600 ms"], table, True)
    assert not agrees(["a b", "─ ─", "y 1.5 ms"], table, True)
    assert agrees(["a b", "…"], table, False)
    assert agrees(["…", "x … ms"], table, False)
    assert agrees(["x 0.99, y"], ["x 1, y"], True)
    assert agrees(["…", "x … 1.5 ms"], table, False)
    assert not agrees(["…", "x … s"], table, False)
    assert agrees(["|none~0|+|a~0|b~1| in run.json"], ["|c~0|+|a~0|none~1|  in run.json"], True)
    assert not agrees(["made a1.json"], ["made a2.json"], True)


def test_all_blocks_of_the_pages_are_found() -> None:
    """Count the lines that begin with a fence, without a parser."""
    for page in PAGES:
        lines = [line.strip() for line in page.read_text(encoding="utf-8").splitlines()]
        blocks: list[Block] = [block for block in blocks_of(page) if block.language != "set-up"]
        assert sum(line.startswith("```") for line in lines) == 2 * len(blocks), page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.documentation
@pytest.mark.slow
def test_the_site_has_every_page_and_no_hidden_comment(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README.html", "index.html")
        assert (site / name).is_file(), name
    for page in site.rglob("*.html"):
        assert not re.search("<!-- (as tested|set-up)", page.read_text()), page
    assert "hwnas table keygen" in (site / "reference/cli.html").read_text()
    assert "Raises HwnasError" in (site / "reference/python.html").read_text()


@pytest.mark.documentation
@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here: make browser")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_site_in_a_browser(site: Path, tmp_path: Path, width: int) -> None:
    """The site opens from disk, fits the window, throws no error and requests only its own files."""
    program = find_chromium()
    assert program
    with Chromium(program, tmp_path / "profile") as browser:
        for page in ("index", "tutorial", "how-to/three-devices", "reference/cli", "reference/python", "methods/index"):
            browser.open(site / f"{page}.html", width)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, page
            assert browser.complaints() == [], page
            assert [url for url in browser.requests() if not url.startswith(("file:", "data:", "blob:"))] == [], page


@pytest.mark.documentation
@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here: make browser")
def test_the_search_works_from_disk(site: Path, tmp_path: Path) -> None:
    program = find_chromium()
    assert program
    with Chromium(program, tmp_path / "profile") as browser:
        browser.open(site / "index.html", 1280)
        browser.evaluate("document.querySelector('.md-search__input').focus()")
        browser.call("Input.insertText", text="keygen")
        found = browser.evaluate(
            "new Promise((done, fail) => { const wait = setInterval(() => {"
            "const links = [...document.querySelectorAll('.md-search-result__link')].map(link => link.href);"
            "if (links.length) { clearInterval(wait); done(links); } }, 50); setTimeout(fail, 30000); })"
        )
        assert any("reference/cli.html" in link or "share-a-table.html" in link for link in found), found
        assert browser.complaints() == []
