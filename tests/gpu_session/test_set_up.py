"""Before the first step of a session on a GPU: packages, images, the time that they take, what can go wrong."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Collection
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.utils import canonicalize_name as canonical
from PIL import Image

from benchmarks.gpu import records
from benchmarks.gpu.images import FOLDER, RANDOM, cifar10, decode_archive
from benchmarks.gpu.machine import packages
from benchmarks.gpu.missing import missing
from benchmarks.gpu.process import Ended
from benchmarks.gpu.run import main
from hwnas.data.user_function import python_data
from hwnas.errors import HwnasError
from support.bare_environment import required_packages
from support.paths import ROOT


def pack_images(archive: Path, counts: dict[str, int]) -> None:
    """Write so many images of two classes for each split, each of one red."""
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for split, count in counts.items():
            for number in range(count):
                buffer = io.BytesIO()
                Image.new("RGB", (32, 32), (number * 20, 0, 0)).save(buffer, "JPEG")
                info = tarfile.TarInfo(f"{split}/{('cat', 'dog')[number % 2]}/{number:02}.jpg")
                info.size = len(buffer.getvalue())
                tar.addfile(info, io.BytesIO(buffer.getvalue()))


def test_images_are_decoded_once_and_read_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "images.tar.gz"
    pack_images(archive, {"train": 12, "test": 4})
    decode_archive(archive, tmp_path / "arrays", processes=1)
    monkeypatch.setenv(FOLDER, str(tmp_path / "arrays"))
    data = python_data("python:x:y", "benchmarks.gpu.images:cifar10", lambda targets, split: np.arange(len(targets)))
    assert data.labels == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 4)
    red = np.concatenate([cifar10()[split][0][:, 0, 0, 0] for split in ("train", "validation")])
    assert sorted(np.round(red / 20)) == list(range(12))


def test_images_that_were_not_carried_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(HwnasError, match=r"has no images; .*pack\.sh"):
        cifar10()
    pack_images(tmp_path / "train.tar.gz", {"train": 5})
    decode_archive(tmp_path / "train.tar.gz", tmp_path / "arrays", processes=1)
    monkeypatch.setenv(FOLDER, str(tmp_path / "arrays"))
    with pytest.raises(HwnasError, match=r"no test split; .*pack\.sh"):
        cifar10()["test"]()
    pack_images(tmp_path / "test.tar.gz", {"test": 5})
    with pytest.raises(HwnasError, match=r"no images train/CLASS"):
        decode_archive(tmp_path / "test.tar.gz", tmp_path / "none", processes=1)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """Run a session whose steps do nothing; return the seconds that each may take."""
    given: dict[str, float] = {}

    def runs(command: Any, limit_s: float, log: Path, environment: Any) -> Ended:
        name = Path(command[command.index("--out") + 1]).name.partition(".")[0]
        given[name] = limit_s
        assert environment.get(FOLDER) == (RANDOM if "--rehearse" in sys.argv else None)
        return Ended(0, 0.0, "")

    def run(*options: str) -> dict[str, float]:
        given.clear()
        pack = ("--pack", str(tmp_path / "pack"))
        monkeypatch.setattr(sys, "argv", ["run", str(tmp_path / "out"), "600", *pack, *options])
        main()
        return given

    monkeypatch.setenv(FOLDER, "")  # what a session sets is undone after the test
    monkeypatch.delenv(FOLDER)
    monkeypatch.setattr("benchmarks.gpu.session.run_for", runs)
    return run


def test_random_images_are_for_rehearsals(session: Callable[..., dict[str, float]]) -> None:
    assert list(session("--only", "equality")) == ["equality"]
    assert list(session("--only", "drnas", "--rehearse")) == ["drnas"]


def test_an_unknown_step_is_an_error(
    session: Callable[..., dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        session("--only", "snas", "drnass")
    assert ended.value.code == 2
    assert "no step is named drnass; the steps are tests, equality" in capsys.readouterr().err


@pytest.mark.slow
def test_the_time_of_the_installation_counts(session: Callable[..., dict[str, float]], tmp_path: Path) -> None:
    assert 400 < session("--only", "snas", "--spent", "100")["snas"] < 500
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase $1 in benchmarks/gpu/missing.py) sleep 1.1;; *) echo "$@";; esac\n')
    python.chmod(0o755)
    (tmp_path / "pack" / "wheels").mkdir(parents=True)
    environment = {**os.environ, "PYTHON": str(python), "GPU_PACK": str(tmp_path / "pack"), "SECONDS": "1000"}
    command = ["bash", "benchmarks/gpu/run.sh", "OUT", "600"]
    words = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert 1 <= int(words[words.index("--spent") + 1]) < 1000
    assert words[-2:] == ["OUT", "600"]


@pytest.mark.parametrize("damaged", ["returned/snas.tar.gz.00", "cifar10-images.tar.gz"])
def test_a_failed_set_up_is_recorded(
    session: Callable[..., dict[str, float]], tmp_path: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pack" / "returned").mkdir(parents=True)
    (tmp_path / "pack" / damaged).write_bytes(b"no archive")
    with pytest.raises(SystemExit) as ended:
        session()
    assert ended.value.code == 1
    (record,) = records.read(tmp_path / "out")
    assert (record["step"], record["state"]) == ("set-up", "failed")
    assert "ReadError" in record["tail"]
    assert "ReadError" in capsys.readouterr().err
    assert record["machine"]["packages"]["torch"]


def required(names: Collection[str]) -> set[str]:
    """Return the packages of these names, and all that they require."""
    return {canonical(found) for name in names for found in (name, *required_packages(distribution(name)))}


def test_the_machine_needs_only_the_packages_that_the_readme_names() -> None:
    """All that hwnas requires is carried, named in the README, or required by a package that is named there."""
    script = (ROOT / "benchmarks/gpu/pack.sh").read_text()
    carried = {name for names in re.findall(r"\(pinned ([^)]*)\)", script) for name in names.replace("\\", "").split()}
    named = re.search(r"- for hwnas: (.*?) \(", (ROOT / "benchmarks/gpu/README.md").read_text(), re.DOTALL)
    assert named
    there = {name.strip() for name in named[1].split(",")}
    there |= required(there)
    needs = required(packages())
    assert {"fvcore", "typer"} <= carried <= needs
    assert needs - carried <= there


def test_only_wheels_that_fit_and_are_missing_are_installed(tmp_path: Path) -> None:
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    names = [
        f"nowhere_to_be_found-1.0-{here}-{here}-manylinux_2_17_x86_64.whl",
        "nowhere_to_be_found-1.0-cp37-cp37m-manylinux_2_17_x86_64.whl",
        "also_not_there-2.0-py2.py3-none-any.whl",
        "numpy-2.0-py3-none-any.whl",
        "of_a_stable_interface-1.0-cp310-abi3-manylinux_2_17_x86_64.whl",
        "of_a_later_interface-1.0-cp399-abi3-manylinux_2_17_x86_64.whl",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [wheel.name for wheel in missing(tmp_path)] == sorted([names[0], names[2], names[4]])
