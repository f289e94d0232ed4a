"""Parse the code blocks of a Markdown page and run them as a reader does: in order, in one folder, with one shell.

docs/reference/pages.md describes the rules of a page that are implemented here.
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
from importlib.util import find_spec
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

from support.noise import skip_for_noise

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "console", "python", "yaml", "json", "text")
HIDDEN = re.compile(r"<!-- (set-up|as tested)\n(.*?)-->", re.DOTALL)
NUMBERS_VARY, MAY_BREAK, NEEDS = "numbers vary", "exit code 0 or 1", "needs "
TIMEOUT_S = 300
NOISY_ATTEMPTS = 3  # a machine that is too noisy to time anything may be quieter a moment later


class PageError(AssertionError):
    """A page breaks a rule or does not do what it says; the message begins with file and line."""


@dataclass(frozen=True)
class Block:
    """A code block, or the set-up in a comment (language ``set-up``), with the rules under which it is run."""

    place: str
    language: str
    text: str
    title: str = ""
    replaced: tuple[tuple[str, str], ...] = ()
    numbers_vary: bool = False
    exit_codes: tuple[int, ...] = (0,)
    needs: str = ""

    def shortened(self, command: str) -> str:
        """Return a command after the replacements of the block."""
        for old, new in self.replaced:
            command = command.replace(old, new)
        return command

    def steps(self) -> Iterator[tuple[str, list[str] | None]]:
        """Yield every command with the lines of output that the page shows, or None if it shows none."""
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
    """Return the code blocks of a page in order. Raises PageError for a block that no rule covers."""
    blocks: list[Block] = []
    rules_text = ""  # the rules that a comment gives for the next block
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        place = f"{page.relative_to(ROOT)}:{token.map[0] + 1}" if token.map else str(page)
        if token.type == "html_block" and (found := HIDDEN.fullmatch(token.content.strip())):
            if found[1] == "set-up":
                blocks.append(Block(place, "set-up", found[2]))
            else:
                rules_text = found[2]
        elif token.type == "html_block" and re.match(r"<!-- (set|as)", token.content):
            raise PageError(f"{place}: a comment that looks like a set-up, but is not spelled like one")
        elif token.type == "code_block":
            raise PageError(f"{place}: an indented block; put it between fences that name its language")
        elif token.type == "fence":
            blocks.append(_block(place, token.info, token.content, rules_text))
            rules_text = ""
    if rules_text:
        raise PageError(f"{page.relative_to(ROOT)}: 'as tested' without a block after it")
    return blocks


def _block(place: str, info: str, text: str, rules_text: str) -> Block:
    found = re.fullmatch(r'(\w+)(?: title="([\w./-]+)")?', info.strip())
    if not found or found[1] not in LANGUAGES:
        raise PageError(f'{place}: the fence says {info!r}, not one of {", ".join(LANGUAGES)} (title="FILE")')
    rules = rules_text.splitlines()
    replaced = tuple((old, new) for old, mark, new in (rule.partition(" => ") for rule in rules) if mark)
    if missing := [old for old, _ in replaced if old not in text]:
        raise PageError(f"{place}: {missing[0]!r} is to be replaced, but the block does not contain it")
    known = (NUMBERS_VARY, MAY_BREAK)
    if unknown := [rule for rule in rules if not (" => " in rule or rule in known or rule.startswith(NEEDS))]:
        raise PageError(f"{place}: unknown rule: {unknown[0]!r}")
    codes = (0, 1) if MAY_BREAK in rules else (0,)
    needs = next((rule.removeprefix(NEEDS) for rule in rules if rule.startswith(NEEDS)), "")
    return Block(place, found[1], text, found[2] or "", replaced, NUMBERS_VARY in rules, codes, needs)


@dataclass
class Reader:
    """Follow a page in ``folder``. The file ``state`` keeps the shell's variables from block to block.

    ``variables`` are the environment variables at the start.
    """

    folder: Path
    state: Path
    variables: dict[str, str]
    written: dict[str, str] = field(default_factory=dict)  # files that the page creates, with the line of the block
    said: list[str] = field(default_factory=list)  # all commands

    def read(self, page: Path) -> None:
        """Run all blocks of a page. Raises PageError at the first block that does not do what it says."""
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
        if block.needs and find_spec(block.needs) is None:
            return
        if block.title:
            file = self.folder / block.title
            if not file.exists():
                self.written[block.title.replace("-", "_")] = block.place
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as opened:  # a second block with the same title continues the file
                opened.write(block.text)
        elif block.language == "python":
            (self.folder / ".block.py").write_text(block.shortened(block.text), encoding="utf-8")
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
        """Run a command and return its standard output."""
        keep = f"trap 'declare -px > {shlex.quote(str(self.state))}' EXIT\n"
        load = f"[ ! -e {shlex.quote(str(self.state))} ] || . {shlex.quote(str(self.state))}\n"
        done = shell(load + keep + command, self.folder, self.variables, block.exit_codes)
        if done.returncode not in block.exit_codes:
            said = f"{done.stdout}\n{done.stderr}"
            raise PageError(f"{block.place}: exit code {done.returncode}\n{command}\n{said}")
        return done.stdout


def shell(
    command: str, folder: Path, variables: dict[str, str], exit_codes: tuple[int, ...] = (0,)
) -> subprocess.CompletedProcess[str]:
    """Run a command with bash in a folder. If hwnas finds the machine too noisy, repeat it, and in the end skip."""
    for _ in range(NOISY_ATTEMPTS):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder, env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode in exit_codes or "too noisy" not in done.stderr:
            return done
    skip_for_noise(done.stderr)


@contextmanager
def warm_hwnas(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the variables with which the shell finds hwnas and Python of these tests, and the checkout, ``CHECKOUT``.

    One process, which has imported hwnas already, forks for every command.
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
    """Return whether a page shows what was printed: … matches anything within a line, or any lines.

    The width of columns depends on their content, so runs of spaces and of ─ are compared as one character. If numbers
    vary, all numbers are equal, and so are all architectures.
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
