"""What a recipe leaves to the run: precision, kernels and finalists; a run that has begun keeps what it began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwnas.compute import precision as precision_module
from hwnas.compute.precision import choose_precision
from hwnas.errors import HwnasError
from hwnas.finalists import price
from hwnas.jobs.in_process import InProcess
from hwnas.networks.fast.kernels import kernels
from hwnas.recipe import Finalists, Recipe, read_recipe
from hwnas.runs import settle
from hwnas.runs.manifest_schema import SearchRecipe
from hwnas.runs.two_networks import TwoNetworks
from hwnas.search.objective import Objective
from hwnas.spaces import SizedSpace
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.json_files import content_of
from support.searches import DATA, make_search
from support.spaces import NB201, SMALL

SIZED = SizedSpace(NB201, SMALL["nasbench201"])
NETWORKS = TwoNetworks(SIZED, SIZED, DATA, DATA)
OLD = {"method": "snas", "epochs": 20, "seed": 0, "precision": "float32", "kernels": "torch"}  # before `auto`


def recipe(**changes: Any) -> Recipe:
    return read_recipe("snas-short", {"compute": "cpu", **changes})


@pytest.fixture(scope="module")
def objectives() -> list[Objective]:
    return [target.objective for target in make_search("nasbench201", recipe(batch_size=64)).targets]


def settled(
    asked: Recipe, objectives: list[Objective], begun: dict[str, Any] | None = None, baselines: bool | None = None
) -> tuple[Finalists | None, str]:
    known = None if begun is None else SearchRecipe.model_validate(begun)
    found, line = settle.settle_finalists(asked, NETWORKS, objectives, baselines, known)
    assert found.finalists != "auto"
    return found.finalists, line


def test_a_search_computes_as_this_machine_does_best() -> None:
    found, computed = settle.settle_computing(recipe(), SIZED, True, None)
    precision, why = choose_precision("auto")
    assert (found.precision, computed["precision"], computed["precision_reason"]) == (precision, precision, why)
    compiled = precision == "bfloat16" and kernels().library is not None
    assert found.kernels == ("compiled" if compiled else "torch")


@pytest.mark.parametrize("name", ["short/darts-second", "nasbench201/idarts", "nasbench201/zarts"])
def test_methods_that_compare_close_weights_compute_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite differences of 1 % of a step vanish in the 8 bits of bfloat16's fraction."""
    monkeypatch.setattr(precision_module, "bfloat16_flag", lambda: "avx512_bf16")
    found, computed = settle.settle_computing(read_recipe(name, {"compute": "cpu"}), SIZED, True, None)
    assert found.precision == computed["precision"] == "float32"
    assert "compares close weights" in computed["precision_reason"]
    assert settle.settle_computing(recipe(), SIZED, True, None)[0].precision == "bfloat16"


def test_precision_and_kernels_that_are_asked_for_stay() -> None:
    asked = recipe(precision="float32", kernels="torch")
    found, computed = settle.settle_computing(asked, SIZED, True, None)
    assert found == asked
    assert settle.describe_computing(computed) == (
        "the processor computes the supernet in float32 (as requested) with plain torch (as requested)"
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_a_run_resumes_in_the_precision_it_began_with(precision: str) -> None:
    """Older runs recorded ``auto`` where it was asked for; their hash has it."""
    begun = SearchRecipe.model_validate({**OLD, "precision": precision})
    found, computed = settle.settle_computing(recipe(), SIZED, True, begun)
    assert (found.precision, found.kernels) == (precision, "torch")
    assert computed["precision"] == choose_precision(precision)[0]  # type: ignore[arg-type]
    assert computed["kernels_reason"] == "as this run began"


def test_partial_channels_and_chains_use_plain_torch_in_float32() -> None:
    wide = SizedSpace(NB201, SIZED.resized(channels=16).setting)
    chosen = {
        partial: settle.settle_computing(recipe(precision="float32", partial_channels=partial), wide, True, None)[1]
        for partial in (1, 4)
    }
    assert chosen[4]["kernels_reason"] == "as fast in float32 with 4 channels in the mixture"
    assert chosen[1]["kernels_reason"] == (kernels().reason or "faster, and equal but for rounding")
    assert settle.settle_computing(recipe(), wide, False, None)[1]["kernels"] == "plain torch"


def test_finalists_are_the_default_where_they_are_cheap(
    objectives: list[Objective], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, line = settled(recipe(), objectives)
    assert found is None
    assert "over the 10 s of the default; --finalists 12 asks for them" in line
    monkeypatch.setattr(price, "CHEAP_S", 600.0)
    found, line = settled(recipe(), objectives)
    assert found == Finalists()
    assert line.startswith("12 finalists, about ")
    assert line.endswith(" s of one processor core (by default; --finalists 0 trains none)")


def test_finalists_that_are_asked_for_are_trained_whatever_they_cost(objectives: list[Objective]) -> None:
    found, line = settled(recipe(**{"finalists.trainings": 5}), objectives)
    assert found == Finalists(trainings=5)
    assert "(as requested)" in line


@pytest.mark.parametrize("begun", [OLD, {**OLD, "finalists": {"trainings": 4, "epochs": 1}}])
def test_a_run_keeps_the_finalists_it_began_with(
    objectives: list[Objective], monkeypatch: pytest.MonkeyPatch, begun: dict[str, Any]
) -> None:
    monkeypatch.setattr(price, "CHEAP_S", 600.0 if begun is OLD else 0.0)
    found, line = settled(recipe(), objectives, begun)
    assert found == (None if begun is OLD else Finalists(trainings=4, epochs=1))
    assert "this run began" in line


def test_baselines_follow_the_finalists(objectives: list[Objective], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HwnasError, match="the search has none; add --finalists 12"):
        settled(recipe(), objectives, baselines=True)
    assert settled(recipe(), objectives, baselines=False)[0] is None
    monkeypatch.setattr(price, "CHEAP_S", 600.0)
    for baselines in (None, True, False):
        assert settled(recipe(), objectives, baselines=baselines)[0] == Finalists(baselines=baselines)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_command_of_an_older_run_resumes_it(
    run: Run, tmp_path: Path, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with the former defaults, spelled out, is that of the same command before ``auto``."""
    sizes = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1, "--batch-size", 64, "--budget", "mild")
    search = ("search", "--table", table_file, *sizes, "--epochs", 1, "--child-epochs", 0, "--out", tmp_path / "run")
    done = run(*search, "--precision", "float32", "--kernels", "torch", "--finalists", 0)
    assert done.exit_code == 0, done.output
    assert "no finalists: as requested" in done.stderr
    manifest = content_of(tmp_path / "run/manifest.json")
    assert "finalists" not in manifest["recipe"]
    monkeypatch.setattr(price, "CHEAP_S", 600.0)
    again = run(*search)
    assert again.exit_code == 0, again.output
    assert "in float32 (as this run began) with plain torch (as this run began)" in again.stderr
    assert "no finalists: this run began without them" in again.stderr
    assert content_of(tmp_path / "run/manifest.json") == manifest
    assert_one_clear_line(run(*search, "--finalists", 3), "holds a run with other settings")


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_search_trains_finalists_and_baselines_by_default(
    run: Run, tmp_path: Path, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Finalists(trainings=2, rounds=1, candidates=2, epochs=1, last=1, last_epochs=1, batch_size=64, baselines=True)
    monkeypatch.setattr(price, "CHEAP_S", 600.0)
    monkeypatch.setattr(settle, "DEFAULT", few)
    monkeypatch.setattr("hwnas.jobs.choose.LocalExecutor", lambda workers, threads: InProcess(threads))
    sizes = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1, "--batch-size", 64, "--budget", "mild")
    search = ("search", "--table", table_file, *sizes, "--method", "random", "--epochs", 1, "--child-epochs", 0)
    done = run(*search, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "2 finalists, about " in done.stderr
    assert "within the same budget, all trained as the finalists were, for 2 epochs" in done.stdout
    assert content_of(tmp_path / "run/manifest.json")["recipe"]["finalists"]["trainings"] == 2
