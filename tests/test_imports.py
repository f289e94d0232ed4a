"""Import objects by path, and packages that an optional extra installs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.imports import import_object, require_extra


def test_import_object_reads_a_module_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_the_user.py").write_text("ANSWER = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_object("module_of_the_user:ANSWER", "space") == 42
    with pytest.raises(HwnasError, match="has no OTHER"):
        import_object("module_of_the_user:OTHER", "space")


def test_require_extra_returns_an_installed_module() -> None:
    assert require_extra("json", "report", "a report") is sys.modules["json"]


def test_a_missing_module_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HwnasError) as raised:
        require_extra("matplotlib", "report", "drawing pictures")
    assert raised.value.problem == "drawing pictures needs matplotlib, which is not installed"
    assert raised.value.fix == "pip install 'hwnas[report]'"


def test_a_module_that_fails_to_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HwnasError, match=r"cannot be imported: .*a_module_that_is_not_there.*hwnas\[share\]"):
        require_extra("broken_package", "share", "sharing")
