"""The Python API: imports on first use, inputs, and the steps of the workflow, quiet by default."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import hwnas
from hwnas import api
from hwnas.errors import HwnasError
from hwnas.tables.schema import LatencyTable
from support.command import Run


def test_import_loads_the_standard_library_and_errors_alone() -> None:
    program = "import sys; before = set(sys.modules); import hwnas; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    ours = [name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names]
    assert ours == ["hwnas", "hwnas.errors"]
    assert len(loaded) < 60  # 28 with Python 3.11: a few milliseconds


@pytest.mark.parametrize("name", [name for name in hwnas.__all__ if name not in ("HwnasError", "__version__")])
def test_every_function_is_documented(name: str) -> None:
    assert name in dir(hwnas)
    function = getattr(api, name)
    documentation = inspect.getdoc(function)
    assert documentation
    assert documentation.splitlines()[0].rstrip(",").count(" ") > 3
    assert "Raises HwnasError" in documentation
    assert inspect.signature(getattr(hwnas, name)) == inspect.signature(function)


def test_search_export_and_report_are_functions_and_packages(tmp_path: Path) -> None:
    from hwnas.export import network
    from hwnas.search import choices

    assert hwnas.search.choices is choices
    assert hwnas.export.network is network
    with pytest.raises(HwnasError, match="no such table"):
        hwnas.search(tmp_path / "no such table.json", tmp_path / "run")
    with pytest.raises(HwnasError):
        hwnas.report(tmp_path / "no run", tmp_path / "page.html")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        hwnas.serach  # noqa: B018


def test_tables_are_named_by_their_files_or_by_a_mapping(table_file: Path) -> None:
    table = hwnas.read_table(table_file)
    assert isinstance(table, LatencyTable)
    assert api.read_tables(table_file) == {"table": table}
    assert api.read_tables(table) == {"table": table}
    assert api.read_tables({"phone": table, "board": str(table_file)}) == {"phone": table, "board": table}
    with pytest.raises(HwnasError, match="two tables have the name 'table'"):
        api.read_tables([table_file, table])


def test_sizes_change_a_named_setting() -> None:
    sized = api.sized_space("nasbench201", channels=4, layers=1, input_shape=(3, 16, 16), classes=7)
    assert sized.key == "nasbench201/4x1/3x16x16/7"
    assert api.sized_space(hwnas.get_space("darts")).setting == sized.space.__class__.setting(
        hwnas.get_space("darts"), hwnas.get_space("darts").search_setting
    )


def test_export_writes_a_network_with_random_weights(tmp_path: Path) -> None:
    cell = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
    exported = hwnas.export(cell, tmp_path / "a.onnx", channels=4, layers=1, input_shape=(3, 16, 16), seed=3)
    assert exported.file == tmp_path / "a.onnx"
    assert exported.sized.setting.channels == 4
    onnx.checker.check_model(str(exported.file), full_check=True)
    with pytest.raises(HwnasError, match="DARTS genotype"):
        hwnas.export("DARTS_V3", tmp_path / "b.onnx", "darts")


@pytest.mark.slow
def test_a_search_returns_its_targets_and_prints_nothing(
    table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (target,) = hwnas.search(
        table_file, run, "mild", data="digits?size=16", channels=4, layers=1, epochs=1, child_epochs=1
    )
    assert target.budget == "mild"
    assert target.predicted_ms is not None
    assert Path(target.onnx).exists()
    (scores,) = hwnas.evaluate(run, "validation")
    assert 0 <= scores.scores["onnx"].accuracy <= 1
    with pytest.raises(HwnasError, match="unknown split"):
        hwnas.evaluate(run, "testing")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["profile", "forecast_profile"])
def test_the_command_passes_every_option_to_the_function(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls: list[inspect.BoundArguments] = []
    signature = inspect.signature(getattr(api, name))

    def record(*arguments: object, **options: object) -> None:
        calls.append(signature.bind(*arguments, **options))
        raise HwnasError("recorded")

    monkeypatch.setattr(api, name, record)
    sizes = {"channels": 4, "layers": 2, "classes": 7}
    counts = {"rounds": 5, "fit_networks": 6, "report_networks": 7, "minutes": 1.5}
    texts = {"device": "cpu+torch", "space": "darts", "setting": "cifar"}
    named = texts | sizes | counts
    options = [str(word) for key, value in named.items() for word in (f"--{key.replace('_', '-')}", value)]
    flags = ["--input", "3x16x20", "--remeasure", "--accept-noise", "--licence", "CC0"]
    plan = ["--plan"] if name == "forecast_profile" else []
    run("profile", "--out", tmp_path / "t.json", *options, *flags, *plan)
    (call,) = calls
    others = {"out": tmp_path / "t.json", "input_shape": (3, 16, 20), "remeasure": True, "accept_noise": True}
    others |= {"progress": call.arguments["progress"]} | ({} if plan else {"licence": "CC0"})
    assert call.arguments == named | others
    assert set(call.arguments) == set(signature.parameters)
