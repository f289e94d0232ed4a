"""Addresses that are not a shelf, and missing packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hwnas.tables.io import read_table
from support.command import Run, assert_one_clear_line
from support.shelves import refuses_pull


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("warp://x/y", "no package knows the protocol of shelf warp://x/y"),
        ("", "is not a shelf"),
        ("simplecache::http://127.0.0.1:1/x", "is not a shelf"),
        ("http:///", "http:///"),
    ],
)
def test_invalid_addresses_are_one_line(run: Run, tmp_path: Path, cpu: Path, address: str, words: str) -> None:
    refuses_pull(run, address, tmp_path, words)
    assert_one_clear_line(run("table", "push", cpu, address), "")


@pytest.mark.parametrize(("protocol", "words"), [("s3", r"hwnas\[s3\]"), ("hf", r"hwnas\[hf\]")])
def test_a_missing_package_is_named(
    run: Run, tmp_path: Path, cpu: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, words: str
) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refuses_pull(run, f"{protocol}://x/y", tmp_path, f"{protocol}://x/y", f"pip install '{words}'")


@pytest.mark.slow
def test_push_creates_the_folder_of_a_shelf_but_no_parents(run: Run, tmp_path: Path, cpu: Path) -> None:
    assert_one_clear_line(run("table", "push", cpu, tmp_path / "no" / "shelf"), "no/shelf does not exist")
    assert not (tmp_path / "no").exists()
    refuses_pull(run, tmp_path / "none", tmp_path, "none does not exist")
    (tmp_path / "plain").mkdir()
    refuses_pull(run, tmp_path / "plain", tmp_path, "is not a shelf: it has no index.json", "table push")
    assert_one_clear_line(run("table", "push", cpu, cpu), "cpu.json cannot be (read|written)")
    assert read_table(cpu)
