"""The code blocks of a Markdown page, and running them as a reader does: in order, in one folder, by one shell.

docs/reference/pages.md says how a page is written; this file is what it describes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

from support.noise import skip_for_noise

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "console", "python", "yaml", "json", "text")
HIDDEN = re.compile(r"<!-- (set-up|as tested)\n(.*?)-->", re.DOTALL)
NUMBERS_VARY, MAY_BREAK = "numbers vary", "exit code 0 or 1"
TIMEOUT_S = 300
NOISY_ATTEMPTS = 3  # a machine that is too noisy to time anything may be quieter a moment later


class PageError(AssertionError):
    """What is wrong with a page, and where."""


@dataclass(frozen=True)
class Block:
    """A code block, or the set-up in a comment (language ``set-up``), and how the test runs it."""

    place: str
    language: str
    text: str
    title: str = ""
    replaced: tuple[tuple[str, str], ...] = ()
    numbers_vary: bool = False
    exit_codes: tuple[int, ...] = (0,)

    def shortened(self, command: str) -> str:
        """A command with the replacements that stand in it."""
        for old, new in self.replaced:
            command = command.replace(old, new)
        return command

    def steps(self) -> Iterator[tuple[str, list[str] | None]]:
        """Commands with what they print, which is None where the page does not show it."""
        if self.language in ("sh", "set-up"):
            yield self.text, None
            return
        command, shown = "", []
        for line in self.text.splitlines():
            if command.endswith("\\\n"):
                command += f"{line}\n"
            elif line.startswith("$ "):
                if command:
                    yield command, shown
                command, shown = f"{line[2:]}\n", []
            elif not command:
                raise PageError(f"{self.place}: a console block begins with a line '$ COMMAND'")
            else:
                shown.append(line)
        yield command, shown


def blocks_of(page: Path) -> list[Block]:
    """Every code block of a page, in order. Raises PageError for one that no rule covers."""
    blocks: list[Block] = []
    told = ""  # what a comment says of the block that follows it
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        place = f"{page.relative_to(ROOT)}:{token.map[0] + 1}" if token.map else str(page)
        if token.type == "html_block" and (found := HIDDEN.fullmatch(token.content.strip())):
            if found[1] == "set-up":
                blocks.append(Block(place, "set-up", found[2]))
            else:
                told = found[2]
        elif token.type == "html_block" and re.match(r"<!-- (set|as)", token.content):
            raise PageError(f"{place}: a comment that looks like a set-up, but is not written like one")
        elif token.type == "code_block":
            raise PageError(f"{place}: an indented block; put it between fences that name its language")
        elif token.type == "fence":
            blocks.append(_block(place, token.info, token.content, told))
            told = ""
    if told:
        raise PageError(f"{page.relative_to(ROOT)}: 'as tested' without a block behind it")
    return blocks


def _block(place: str, info: str, text: str, told: str) -> Block:
    found = re.fullmatch(r'(\w+)(?: title="([\w./-]+)")?', info.strip())
    if not found or found[1] not in LANGUAGES:
        raise PageError(f'{place}: the fence says {info!r}, not one of {", ".join(LANGUAGES)} (title="FILE")')
    rules = told.splitlines()
    replaced = tuple((old, new) for old, mark, new in (rule.partition(" => ") for rule in rules) if mark)
    if missing := [old for old, _ in replaced if old not in text]:
        raise PageError(f"{place}: {missing[0]!r} is to be replaced, but does not stand there")
    if unknown := [rule for rule in rules if " => " not in rule and rule not in (NUMBERS_VARY, MAY_BREAK)]:
        raise PageError(f"{place}: no rule of a test: {unknown[0]!r}")
    codes = (0, 1) if MAY_BREAK in rules else (0,)
    return Block(place, found[1], text, found[2] or "", replaced, NUMBERS_VARY in rules, codes)


@dataclass
class Reader:
    """Somebody who does what a page says, in ``folder``; ``state`` holds the shell's variables between blocks.

    ``variables`` are those that the shell begins with.
    """

    folder: Path
    state: Path
    variables: dict[str, str]
    written: dict[str, str] = field(default_factory=dict)  # new files by name, and where they stand
    said: list[str] = field(default_factory=list)  # all commands

    def read(self, page: Path) -> None:
        """Do all of a page. Raises PageError at the first block that does not do what it says."""
        for block in blocks_of(page):
            self._do(block)
        for name, place in self.written.items():
            if not any(Path(name).stem in command.replace("-", "_") for command in self.said):
                raise PageError(f"{place}: {name} is written, but no command uses it")

    def _do(self, block: Block) -> None:
        if block.language == "text":
            if looks_like_commands(block.text):
                raise PageError(f"{block.place}: commands in a text block, which nothing runs")
            return
        if block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, block.place, "exec")
        if block.title:
            file = self.folder / block.title
            if not file.exists():
                self.written[block.title.replace("-", "_")] = block.place
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as opened:  # what a page adds to a file stands at its end
                opened.write(block.text)
        elif block.language == "python":
            (self.folder / ".block.py").write_text(block.text, encoding="utf-8")
            self._run(block, "python .block.py")
        elif block.language in ("sh", "console", "set-up"):
            for command, shown in block.steps():
                printed = self._run(block, block.shortened(command))
                if block.language != "set-up":
                    self.said.append(command)
                if shown is not None and not agrees(shown, printed.splitlines(), block.numbers_vary):
                    raise PageError(
                        f"{block.place}: {command}\nthe page shows:\n" + "\n".join(shown) + f"\n\nprinted:\n{printed}"
                    )

    def _run(self, block: Block, command: str) -> str:
        """What a command prints on standard output."""
        keep = f"trap 'declare -px > {shlex.quote(str(self.state))}' EXIT\n"
        load = f"[ ! -e {shlex.quote(str(self.state))} ] || . {shlex.quote(str(self.state))}\n"
        done = shell(load + keep + command, self.folder, self.variables)
        if "too noisy" in done.stderr and done.returncode not in block.exit_codes:
            skip_for_noise(done.stderr)
        if done.returncode not in block.exit_codes:
            said = f"{done.stdout}\n{done.stderr}"
            raise PageError(f"{block.place}: exit code {done.returncode}\n{command}\n{said}")
        return done.stdout


def shell(command: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command with bash in a folder; repeat it while hwnas finds the machine too noisy."""
    for _ in range(NOISY_ATTEMPTS):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder, env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        if "too noisy" not in done.stderr:
            break
    return done


@contextmanager
def warm_hwnas(folder: Path) -> Iterator[dict[str, str]]:
    """Variables with which the shell finds the hwnas and the Python of these tests, and the checkout, ``CHECKOUT``.

    hwnas is a process that does one command after another without importing everything anew.
    """
    place, here = folder / "warm", ROOT / "tests/support/stand_ins/warm"
    path = os.pathsep.join([str(here), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    variables = {"PATH": path, "PYTHONPATH": str(ROOT), "CHECKOUT": str(ROOT), "WARM": str(place), "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, str(here / "serve.py"), str(place)],
        env={**os.environ, **variables}, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        while not place.exists():
            assert process.poll() is None, "the process has ended"
            time.sleep(0.05)
        yield variables
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def looks_like_commands(text: str) -> bool:
    return bool(re.search(r"^\s*(\$ |(hwnas|make|pip|python3?|ssh|git) )", text, re.MULTILINE))


def agrees(shown: list[str], printed: list[str], numbers_vary: bool) -> bool:
    """Whether a page shows what was printed: … stands for anything, in a line or in place of lines.

    Columns are as wide as what is in them, so spaces and rules are compared as one each. Where numbers vary, any number
    is like any other, and so is any architecture.
    """
    pattern = ""
    for line in (normal(line, numbers_vary) for line in shown):
        words = re.escape(line).replace(r"\ …\ ", r"\ (?:.*\ )?").replace("…", ".*")
        pattern += r"(?:.*\n)*?" if line == "…" else words + r"\n"
    text = "".join(f"{normal(line, numbers_vary)}\n" for line in printed)
    return re.fullmatch(pattern.rstrip("\n") + r"\n*", text) is not None


def normal(line: str, numbers_vary: bool) -> str:
    line = re.sub(r"─+", "─", re.sub(r"\s+", " ", line)).strip()
    if numbers_vary:
        line = re.sub(r"(\|\w+~\d)+\|(\+(\|\w+~\d)+\|)*", "ARCHITECTURE", line)
        line = re.sub(r"\b[0-9a-f]{64}\b", "0", line)
        line = re.sub(r"(?<![\w.])[-+]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?(?![\w.]*\.(json|onnx|png))", "0", line)
    return line
