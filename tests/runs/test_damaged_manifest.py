"""A manifest in which a field is missing or of a wrong type is one clear error of every command that reads it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.report.run_content import read_run
from hwnas.runs.derive import derive_architectures
from hwnas.runs.folder import MANIFEST
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.read import read_networks
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from support.command import Run, assert_one_clear_line, invoke
from support.tables import make_table

Field = tuple[str, ...]
COMMANDS = ("derive", "verify", "evaluate", "train", "report")
NO_TYPE = 7.5  # fits no field: none is a number with a fraction


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Search for one epoch, without training the network."""
    folder = tmp_path_factory.mktemp("manifest")
    sized = SizedSpace(get_space("nasbench201"), Setting(channels=4, depth=1, height=16, width=16))
    write_table(folder / "cpu.json", make_table(sized))
    sizes = ("--data", "digits?size=16", "--channels", 4, "--layers", 1, "--epochs", 1, "--child-epochs", 0)
    budgets = ("--budget", "mild", "--budget", "moderate")
    result = invoke("search", "--table", folder / "cpu.json", *sizes, *budgets, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def folder(searched: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may change."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


def fields(model: Any, before: Field = ()) -> Iterator[tuple[Field, Any]]:
    """Yield the path of every declared field, those of nested models included, and its declaration."""
    for name, field in model.model_fields.items():
        yield (*before, name), field
        if hasattr(field.annotation, "model_fields"):
            yield from fields(field.annotation, (*before, name))


def changed(manifest: dict[str, Any], path: Field, *value: Any) -> dict[str, Any]:
    """Return a manifest with a field that is replaced by ``value`` or, without one, missing."""
    name, *rest = path
    if rest:
        return {**manifest, name: changed(manifest.get(name, {}), tuple(rest), *value)}
    without = {key: content for key, content in manifest.items() if key != name}
    return {**without, name: value[0]} if value else without


def damaged(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of a field, and the manifest without it or with a value of a type that it does not have."""
    for path, field in fields(Manifest):
        name = ".".join(path)
        yield name, changed(manifest, path, NO_TYPE)
        if field.is_required():
            yield name, changed(manifest, path)
            yield name, changed(manifest, path, None)
    yield "tables.table", changed(manifest, ("tables", "table"), NO_TYPE)
    yield "budgets.0", changed(manifest, ("budgets",), [NO_TYPE])
    yield "tables", changed(manifest, ("tables",), {})
    yield "which has no table", changed(manifest, ("budgets",), ["mild", "3ms@phone"])


@pytest.mark.slow
def test_every_damaged_field_is_named(folder: Path) -> None:
    file = folder / MANIFEST
    for name, content in damaged(json.loads(file.read_text())):
        file.write_text(json.dumps(content))
        for read in (read_networks, read_run):
            with pytest.raises(HwnasError, match=rf"manifest.json is incomplete \(.*\b{name}\b.*\); .*hwnas search"):
                read(folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_manifest_is_one_clear_error(run: Run, folder: Path, command: str) -> None:
    file = folder / MANIFEST
    arguments = (command, folder) if command != "report" else (command, folder, "--out", folder / "page.html")
    manifest = json.loads(file.read_text())
    for content in (changed(manifest, ("budgets",)), changed(manifest, ("recipe", "epochs"), None), []):
        file.write_text(json.dumps(content))
        assert_one_clear_line(run(*arguments), r"manifest.json is incomplete \((budgets|recipe.epochs|content): ")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Setting)])
def test_a_damaged_size_is_one_clear_error_of_the_report(folder: Path, name: str) -> None:
    file = folder / MANIFEST
    manifest = json.loads(file.read_text())
    for value in (NO_TYPE, None):
        file.write_text(json.dumps(changed(manifest, ("setting", name), value)))
        with pytest.raises(HwnasError, match=rf"manifest.json is incomplete \(setting.{name}: "):
            read_run(folder)


def test_a_manifest_of_before_several_devices_is_read(folder: Path) -> None:
    file = folder / MANIFEST
    networks = read_networks(folder)
    manifest = json.loads(file.read_text())
    (sha256,) = manifest["tables"].values()
    file.write_text(json.dumps(changed(manifest, ("tables",)) | {"table_sha256": sha256}))
    for target in ("mild", "moderate"):
        path = folder / target / "architecture.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("target", "device")}))
    again = read_networks(folder)
    assert [network.id for network in again] == ["mild", "moderate"]
    assert [network.architecture for network in again] == [network.architecture for network in networks]
    assert derive_architectures(folder, [], 1)
