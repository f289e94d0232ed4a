"""Fixtures of tests of shelves."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.sharing.push import push
from hwnas.spaces import SizedSpace
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable
from support.command import Run
from support.spaces import NB201, SMALL
from support.tables import make_table


@pytest.fixture(scope="module")
def made() -> LatencyTable:
    return make_table(SizedSpace(NB201, SMALL["nasbench201"]))


@pytest.fixture(autouse=True)
def user_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has pulled nothing and trusts nobody."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for variable in ("HWNAS_SHELF", "HWNAS_TRUSTED_KEYS", "HWNAS_SIGNING_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def cpu(tmp_path: Path, made: LatencyTable) -> Path:
    write_table(tmp_path / "cpu.json", made)
    return tmp_path / "cpu.json"


@pytest.fixture
def other(tmp_path: Path, made: LatencyTable) -> Path:
    write_table(tmp_path / "other.json", made.model_copy(update={"source": "another machine"}))
    return tmp_path / "other.json"


@pytest.fixture
def folder(tmp_path: Path, cpu: Path) -> Path:
    """A shelf that holds ``cpu``."""
    push(cpu, str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.fixture
def key(run: Run, tmp_path: Path) -> Path:
    assert run("table", "keygen", tmp_path / "key.pem").exit_code == 0
    return tmp_path / "key.pem"
