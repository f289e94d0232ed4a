"""Tables: what is written reads back, what was tampered with does not, the format answers without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.spaces import SizedSpace
from hwnas.tables.io import read_table, write_table
from support.command import Run, assert_one_clear_line
from support.spaces import ALL_CONV, NB201, SMALL
from support.tables import make_table

SIZE_OPTIONS = ("--channels", 4, "--cells", 1, "--input", "3x16x16")


def test_a_table_reads_back_and_has_one_entry_a_line(table_file: Path) -> None:
    table = read_table(table_file)
    assert (
        table.entries
        == make_table(SizedSpace(NB201, SMALL["nasbench201"])).model_copy(update={"entries": table.entries}).entries
    )
    assert sorted(e.workload for e in table.entries) == SizedSpace(NB201, SMALL["nasbench201"]).network.workloads()
    lines = table_file.read_text().splitlines()
    assert sum('"op":' in line for line in lines) == len(table.entries)
    assert json.loads(table_file.read_text())["sha256"] == table.sha256


def tampered(file: Path, change: str, to: str) -> Path:
    text = file.read_text()
    assert change in text
    file.write_text(text.replace(change, to, 1))
    return file


def with_sha(file: Path, **changes: object) -> Path:
    """Changed and signed anew, as a careless or hostile tool would."""
    content = json.loads(file.read_text()) | changes
    content.pop("sha256")
    file.write_text(json.dumps({**content, "sha256": sha256_of(content)}))
    return file


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: f.unlink(), "does not exist"),
        (lambda f: f.write_text("not json"), "not valid JSON"),
        (lambda f: f.write_bytes(b"\xff\xfe\x00"), "not a text file"),
        (lambda f: f.write_text("[1, 2]"), "not a latency table"),
        (lambda f: f.write_text("[" * 100_000), "not valid JSON"),
        (lambda f: f.write_text(f.read_text()[:500]), "not valid JSON"),
        (lambda f: tampered(f, '"latency_ms":', '"latency_ms":NaN,"x":'), "NaN"),
        (lambda f: tampered(f, '"latency_ms":', '"latency_ms":1,"latency_ms":'), "twice"),
        (lambda f: tampered(f, '"latency_ms":0', '"latency_ms":1'), "sha256"),
        (lambda f: tampered(f, '"version": 1', '"version": 9'), "version 9"),
        (lambda f: with_sha(f, provenance="guessed"), "provenance"),
        (lambda f: with_sha(f, entries=[{"op": "sum"}]), "in_channels"),
        (lambda f: with_sha(f, entries=json.loads(f.read_text())["entries"] * 2), "twice"),
        (lambda f: with_sha(f, entries=[json.loads(f.read_text())["entries"][0] | {"latency_ms": -1}]), "latency_ms"),
        (lambda f: with_sha(f, surprise=1), "surprise"),
    ],
)
def test_broken_tables_are_refused_in_one_line(run: Run, table_file: Path, break_it, words: str) -> None:  # type: ignore[no-untyped-def]
    break_it(table_file)
    assert_one_clear_line(run("table", "show", table_file), "table.json", words, "hwnas profile|update hwnas")


def test_a_table_that_lacks_workloads_lists_them_and_the_command(run: Run, table_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.txt").write_text(ALL_CONV)
    predict = ("table", "predict", table_file, "--architectures", tmp_path / "cells.txt")
    sizes = "the table is for 4 channels, not 16, and for 3x16x16 input, not 3x32x32: it lacks 16 of 16"
    assert_one_clear_line(run(*predict), sizes, "avg_pool_3x3-16-16-32x32-s1", "hwnas profile")
    assert_one_clear_line(run(*predict, "--space", "darts"), "space darts", "hwnas profile --space darts")


def test_predict_prints_one_row_for_each_architecture(run: Run, table_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "cells.txt"
    file.write_text(f"{ALL_CONV}\n\n{ALL_CONV.replace('nor_conv_3x3~2', 'none~2')}\n")
    result = run("table", "predict", table_file, "--architectures", file, *SIZE_OPTIONS, "--json")
    whole, less = json.loads(result.stdout)
    assert set(whole) == {
        "architecture",
        "latency_ms",
        "macs",
        "params",
        "memory_access_bytes",
        "peak_activation_bytes",
    }
    assert whole["architecture"] == ALL_CONV
    assert less["latency_ms"] < whole["latency_ms"]
    assert less["params"] < whole["params"]
    assert less["memory_access_bytes"] < whole["memory_access_bytes"]
    shown = run("table", "predict", table_file, "--architectures", file, *SIZE_OPTIONS)
    assert shown.exit_code == 0
    assert "conv_linear" in shown.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no architecture"),
        ("warp~0", "cells.txt, line 1: .*warp~0"),
        (b"\xff\xfe\x00", "not a text file"),
        (None, "cells"),
    ],
)
def test_predict_refuses_bad_architecture_files(
    run: Run, table_file: Path, tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    file = tmp_path / "cells.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_one_clear_line(run("table", "predict", table_file, "--architectures", file, *SIZE_OPTIONS), words)


def test_show_prints_every_entry(run: Run, table_file: Path) -> None:
    result = run("table", "show", table_file)
    assert result.exit_code == 0
    assert result.stdout.count("nor_conv_3x3") == 3
    assert json.loads(run("table", "show", table_file, "--json").stdout)["format"] == "hwnas-latency-table"


def test_writing_leaves_the_old_table_whole_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.json"
    write_table(file, make_table(SizedSpace(NB201, SMALL["nasbench201"]), seed=1))
    before = file.read_bytes()
    monkeypatch.setattr(
        Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        write_table(file, make_table(SizedSpace(NB201, SMALL["nasbench201"]), seed=2))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("arguments", [["--help"], ["table", "show"], ["space", "show"]])
def test_light_commands_import_no_torch(arguments: list[str], table_file: Path) -> None:
    if arguments == ["table", "show"]:
        arguments = [*arguments, str(table_file)]
    code = (
        "import sys; from hwnas.cli import app; "
        f"sys.argv = ['hwnas', *{arguments!r}]\n"
        "try: app()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'numpy', 'scipy', 'onnx'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_shipped_tables_read_and_cover_their_spaces() -> None:
    from hwnas.cost.model import build_cost_models
    from hwnas.files import shipped
    from hwnas.spaces import SPACES

    tables = [read_table(file) for file in shipped("latency_tables").glob("*.json")]
    assert tables
    known = [SizedSpace(space, setting) for space in SPACES.values() for setting in space.settings.values()]
    networks = {sized.key: sized for sized in known}
    for table in tables:
        for key in table.correction:
            build_cost_models(table, networks[key])
            assert table.quality.additivity[key].networks >= 20


def test_an_unknown_key_names_itself() -> None:
    with pytest.raises(HwnasError, match="does not exist"):
        read_table(Path("nowhere.json"))
