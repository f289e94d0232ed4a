"""Commands that are printed hold the user's own paths and texts as single words of a shell."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.training.checkpoint import Checkpoint
from support.command import Run
from support.paths import ROOT
from support.table_samples import entry_of, save, table_of

AWKWARD = """it's a "folder" & `more` $HOME; *"""
COMMAND = re.compile(
    r"(?:\bhwnas (?:profile|search|derive|train|evaluate|export|verify|report|demo|benchmark|space|table) [^;,]*"
    r"|\brm [^;,]*|--[a-z]+ )\{(?!quoted\()([\w.]+)"
)
# Options put together from quoted words, keys in base 64, and names and numbers that hwnas itself chooses.
SAFE = {
    "DEFAULT.trainings",
    "SHIPPED",
    "options",
    "public",
    "shown",
    "size_options",
    "spec.hardware",
    "spec.runtime.name",
    "AS_SEARCHED",
    "setting.image_channels",
}


def words_of(command: str) -> list[str]:
    """Return the words that bash passes to the program of a command."""
    script = f'hwnas() {{ printf "%s\\0" "$@"; }}\n{command}\n'
    result = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    assert not result.stderr
    return result.stdout.split("\0")[:-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / AWKWARD).mkdir()
    return tmp_path / AWKWARD


def next_of(output: str) -> list[str]:
    (command,) = re.findall(r"^next: (.*)$", output, re.MULTILINE)
    return words_of(command)


def test_next_lines_run_in_a_shell(run: Run, folder: Path) -> None:
    table, shelf, key = save(folder / "a table.json", table_of(entry_of())), folder / "shelf", folder / "a key"
    made = run("table", "keygen", key)
    assert next_of(made.stdout) == ["table", "push", "cpu.json", "SHELF", "--key", str(key)]
    pushed = run("table", "push", table, shelf, "--name", "one", "--key", key)
    assert next_of(pushed.stdout) == ["table", "pull", "one", str(shelf)]
    pulled = run("table", "pull", "one", shelf, "--out", folder / "its.json")
    assert next_of(pulled.stdout) == ["table", "show", str(folder / "its.json")]
    other = save(folder / "other.json", table_of(entry_of("sum")))
    merged = run("table", "merge", table, other, "--out", folder / "both.json")
    assert next_of(merged.stdout) == ["table", "check", str(folder / "both.json")]
    exported = folder / "rows.csv"
    assert run("table", "export", table, "--out", exported).exit_code == 0
    imported = run("table", "import", exported, "--out", folder / "again.json")
    assert next_of(imported.stdout) == ["table", "check", str(folder / "again.json"), "--contents"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("table", "show", "no table.json"), ["profile", "--device", "cpu", "--space", "nasbench201", "--out"]),
        (("report", "no run"), ["search", "--out"]),
        (("table", "push", "no table.json", "shelf", "--key", "no key"), ["table", "keygen"]),
    ],
)
def test_commands_in_errors_run_in_a_shell(
    run: Run, folder: Path, arguments: tuple[str, ...], expected: list[str]
) -> None:
    """The error names the file that is missing last: "no run", "no table.json" or "no key"."""
    missing = folder / next(word for word in reversed(arguments) if word.startswith("no "))
    result = run(*(folder / word if word.startswith("no ") or word == "shelf" else word for word in arguments))
    assert result.exit_code == 2, result.output
    (command,) = re.findall(r"`(hwnas .*)`", result.stderr)
    assert words_of(command) == [*expected, str(missing)]


def test_the_command_that_removes_a_checkpoint_removes_it_alone(folder: Path) -> None:
    checkpoint, other = folder / "checkpoint.pt", folder / "other"
    checkpoint.write_bytes(b"torn")
    other.touch()
    with pytest.raises(HwnasError) as caught:
        Checkpoint(checkpoint, "digest").load()
    words_of(caught.value.fix.removeprefix("remove it to start over: "))
    assert not checkpoint.exists()
    assert other.exists()


@pytest.mark.slow
def test_every_value_in_a_command_is_quoted() -> None:
    """Read all f-strings of the package: a value that follows a command in one is quoted or not a user's."""
    found = [
        f"{file.relative_to(ROOT)}: {text}"
        for file in sorted((ROOT / "hwnas").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr)
        for text in [ast.unparse(node)]
        if {value[1] for value in COMMAND.finditer(text)} - SAFE
    ]
    assert not found
    assert COMMAND.search("next: hwnas table check {out}")
    assert not COMMAND.search("next: hwnas table check {quoted(out)}")
