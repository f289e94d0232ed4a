#!/usr/bin/env python3
"""Measure whether budgets hold and what they cost in accuracy: an oracle study on devices with all networks timed.

    python -m benchmarks.budgets --accuracy FILE.csv.gz --latency FILE.csv.gz [--json] [--out FILE] [--seed N]

Both files (.csv or .csv.gz) have a column `arch` of NAS-Bench-201 architectures; the first a column `cifar10` (test
accuracy, %), the second one a device (measured latency, ms). Each device gets a table fitted to 900 random networks'
latencies, as `hwnas table fit` does, and is asked for mild, moderate and aggressive: the 75th, 50th and 25th
percentile of the latencies that its table predicts. The chosen architecture is evaluated by its measured latency, and
its accuracy is compared with that of the best architecture within the budget as measured. Readings under 5 % of a
device's median are treated as broken and left out.

It is an oracle study: there is no supernet. Logits made from the published accuracies replace the search: around the
most accurate architecture that the table predicts to be within the bound, an operation's logit is the accuracy (in
points) with that one edge changed, less a point (a mean-field distribution at its mode). Only derivation, tables,
error bars and the closed loop are tested.

closed_loop             hwnas.budgets.closed_loop with at most 5 looked-up measurements; for every bound that it
                        tries, the logits are those of a search under that bound, and what a candidate is worth is its
                        accuracy
closed_loop_one_search  the same with one search, that under the budget itself, and log p as the worth
open_loop               the most probable architecture that is predicted to be within the budget, not measured
open_loop_margin        the same below the upper end of the 90 % error bar
soft_penalty            the most probable operation of every edge after logits - lambda * cost, with the lambda at which
                        the expected cost is the budget: a penalty and no other constraint, not measured
random_search           the best of 100 random architectures whose accuracy and latency are all measured
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from scipy.stats import t

from hwnas.budgets.budget import NAMED
from hwnas.budgets.closed_loop import Candidate, best_of, close_loop
from hwnas.budgets.derive import ranked, scores
from hwnas.calibration.design_matrix import connected
from hwnas.calibration.fit import BROKEN, MeasurementOrigin, fit_table
from hwnas.calibration.intervals import ERROR_DEGREES, error_scales
from hwnas.calibration.prior import generic_prior
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.files import write_json
from hwnas.spaces import Architecture, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode, every_choice

SPACE = get_space("nasbench201")
SIZED = SizedSpace.named(SPACE, "cifar")
CHOICES = every_choice(SPACE)
CONNECTED = connected(SPACE, CHOICES)
FITTED, EVALUATIONS = 900, 100
DEVIATION = 1.0  # points less for every edge that is changed
UPPER = float(t.ppf(0.95, ERROR_DEGREES))
VARIANTS = (
    "closed_loop", "closed_loop_one_search", "open_loop", "open_loop_margin", "soft_penalty", "random_search",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A device and a budget: ``accuracy``, ``measured_ms``, ``predicted_ms``, ``error_ms`` [15625] of all architectures
    (NaN: not measured), and ``usable``: those that can be chosen.
    """

    budget_ms: float
    accuracy: np.ndarray
    measured_ms: np.ndarray
    predicted_ms: np.ndarray
    error_ms: np.ndarray
    reading_step_ms: float
    model: CostModel

    @cached_property
    def usable(self) -> np.ndarray:
        return CONNECTED & np.isfinite(self.measured_ms) & np.isfinite(self.accuracy)

    @cached_property
    def best(self) -> float:
        """Return the accuracy of the best architecture that truly keeps the budget."""
        return float(self.accuracy[self.usable & (self.measured_ms <= self.budget_ms)].max())

    def logits(self, bound_ms: float, excluded: Collection[int] = ()) -> dict[str, np.ndarray] | None:
        """Return stand-in logits of a search under a bound; None where nothing is predicted to be within it."""
        allowed = self.usable & (self.predicted_ms <= bound_ms)
        allowed[list(excluded)] = False
        if not allowed.any():
            return None
        centre = CHOICES[np.where(allowed, self.accuracy, -np.inf).argmax()]
        changed = np.repeat(centre[None], centre.size * len(SPACE.operations), axis=0)
        edges, operations = np.divmod(np.arange(len(changed)), len(SPACE.operations))
        changed[np.arange(len(changed)), edges] = operations
        points = np.nan_to_num(self.accuracy[numbers_of(changed)]) - DEVIATION * (operations != centre[edges])
        return {"cell": log_softmax(points.reshape(centre.size, -1), axis=1)}

    def derived(self, logits: Mapping[str, np.ndarray], bound_ms: float, excluded: Collection[int] = ()) -> int | None:
        """Return the index of the most probable architecture predicted to be within the bound."""
        unusable = np.flatnonzero(CONNECTED & ~self.usable)
        passed_over = {decode(SPACE, CHOICES[n]) for n in (*unusable, *excluded)}
        limits = {"latency_ms": (self.model, bound_ms)}
        found = next((a for a in ranked(SPACE, logits, limits, None) if a not in passed_over), None)
        return None if found is None else int(numbers_of(encode(SPACE, [found]))[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accuracy", type=Path, required=True)
    parser.add_argument("--latency", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the networks that are measured for the tables")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, help="write every case, too")
    arguments = parser.parse_args()
    accuracy = read_columns(arguments.accuracy)["cifar10"]
    rows = []
    for number, (device, measured_ms) in enumerate(read_columns(arguments.latency).items()):
        for row in judge(device, accuracy, measured_ms, np.random.default_rng([arguments.seed, number])):
            rows.append(row)
            print(f"{row['device']:16} {row['budget']:10} " + "  ".join(
                f"{name} {row[name]['regret']:.2f}{'' if row[name]['within'] else ' OVER'}" for name in VARIANTS
            ), file=sys.stderr, flush=True)  # fmt: skip
    summary = {name: summarise([row[name] for row in rows]) for name in VARIANTS}
    if arguments.out:
        write_json(arguments.out, {"seed": arguments.seed, "summary": summary, "cases": rows})
    if arguments.json:
        print(json.dumps(summary, indent=2))
        return
    for name, found in summary.items():
        print(f"{name:23} {found['within_budget']:6.1%} of {found['cases']} within budget, "
              f"regret {found['mean_regret']:.2f} on average, {found['worst_regret']:.2f} at worst, "
              f"up to {found['worst_excess_percent']:.0f} % over, {found['measurements']:.1f} measured")  # fmt: skip


def read_columns(file: Path) -> dict[str, np.ndarray]:
    """Read every column but `arch`, [15625] in the order of CHOICES; NaN where there is no row or no number."""
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        rows = list(csv.DictReader(lines))
    numbers = numbers_of(encode(SPACE, [SPACE.parse(row["arch"]) for row in rows]))
    columns = {}
    for name in [name for name in rows[0] if name != "arch"]:
        columns[name] = np.full(len(CHOICES), np.nan)
        columns[name][numbers] = [float(row[name] or "nan") for row in rows]
    return columns


def numbers_of(choices: np.ndarray) -> np.ndarray:
    """Return the index of every row in CHOICES."""
    return np.asarray(choices @ len(SPACE.operations) ** np.arange(choices.shape[1] - 1, -1, -1))


def judge(device: str, accuracy: np.ndarray, read_ms: np.ndarray, generator: np.random.Generator) -> list[dict]:
    """Run all variants on one device under its three budgets."""
    known = np.flatnonzero(np.isfinite(read_ms) & (read_ms > 0))
    chosen = generator.choice(known, min(FITTED, len(known)), replace=False)
    asked = (SIZED, CHOICES[chosen], read_ms[chosen], generic_prior(SIZED), MeasurementOrigin(device))
    table = fit_table(*asked, lambda *_: None).table
    model = build_cost_models(table, SIZED)["latency_ms"]
    predicted_ms = model.predict_many(CHOICES)
    error_ms = error_scales(table, SIZED, CHOICES)
    assert error_ms is not None
    step_ms = table.edge_costs[SIZED.key].scatter_ms * np.sqrt(12)  # of rounding
    measured_ms = np.where(read_ms > BROKEN * np.nanmedian(read_ms), read_ms, np.nan)
    rows = []
    for budget, percentile in NAMED.items():
        budget_ms = float(np.percentile(predicted_ms, percentile))
        case = Case(budget_ms, accuracy, measured_ms, predicted_ms, error_ms, float(step_ms), model)
        found = choose(case, generator)
        row: dict = {"device": device, "budget": budget, "budget_ms": budget_ms, "best": case.best}
        for name, (number, measurements) in found.items():
            latency_ms = float(measured_ms[number])
            row[name] = {
                "architecture": SPACE.format(decode(SPACE, CHOICES[number]), all_edges=True),
                "within": latency_ms <= budget_ms,
                "regret": case.best - float(accuracy[number]),
                "excess_percent": 100 * max(latency_ms / budget_ms - 1, 0.0),
                "measurements": measurements,
            }
        rows.append(row)
    return rows


def choose(case: Case, generator: np.random.Generator) -> dict[str, tuple[int, int]]:
    """Return, for each variant, the selected architecture and the number of measurements used."""
    budget_ms = case.budget_ms
    logits = case.logits(budget_ms)
    assert logits
    opened = case.derived(logits, budget_ms)
    # An error bar's upper end is at a share above the prediction that is about the same for all.
    share = float(np.median(case.error_ms / case.predicted_ms))
    margin_ms = budget_ms / (1 + UPPER * share)
    below = case.derived(case.logits(margin_ms) or logits, margin_ms)
    if below is None:  # where the error bars are that wide, the fastest there is
        below = int(np.where(case.usable, case.predicted_ms, np.inf).argmin())
    tried = generator.choice(np.flatnonzero(case.usable), EVALUATIONS, replace=False)
    within = tried[case.measured_ms[tried] <= budget_ms]
    assert opened is not None
    assert len(within)
    return {
        "closed_loop": closed(case, None),
        "closed_loop_one_search": closed(case, logits),
        "open_loop": (opened, 0),
        "open_loop_margin": (below, 0),
        "soft_penalty": (penalised(case), 0),
        "random_search": (int(within[case.accuracy[within].argmax()]), EVALUATIONS),
    }


def penalised(case: Case) -> int:
    """Argmax of softmax(logits - lambda cost), where E[cost] is the budget; the logits are those without any budget."""
    base_ms, costs_ms = case.model.linear()
    logits = case.logits(np.inf)
    assert logits

    def excess_ms(weight: float) -> float:
        p = softmax(logits["cell"] - weight * costs_ms["cell"], axis=1)
        return base_ms + float(np.sum(p * costs_ms["cell"])) - case.budget_ms

    most = 1e3 / case.budget_ms
    weight = brentq(excess_ms, 0.0, most) if excess_ms(0.0) > 0 else 0.0
    return int(numbers_of((logits["cell"] - weight * costs_ms["cell"]).argmax(axis=1)[None])[0])


def closed(case: Case, one_search: Mapping[str, np.ndarray] | None) -> tuple[int, int]:
    """Run the closed loop, with a search for every bound or with that of the budget alone."""

    def propose(bounds: Mapping[str, float], excluded: Collection[Architecture]) -> Candidate | None:
        passed_over = [int(n) for n in numbers_of(encode(SPACE, list(excluded)))] if excluded else []
        bound_ms = bounds["latency_ms"]
        logits = one_search or case.logits(bound_ms, passed_over)
        number = case.derived(logits, bound_ms, passed_over) if logits else None
        if number is None:
            return None
        worth = float(scores(SPACE, one_search, CHOICES[[number]])[0]) if one_search else float(case.accuracy[number])
        predicted, error = ({"latency_ms": float(of[number])} for of in (case.predicted_ms, case.error_ms))
        return Candidate(decode(SPACE, CHOICES[number]), worth, predicted, error)

    def measure(candidate: Candidate) -> dict[str, float]:
        return {"latency_ms": float(case.measured_ms[numbers_of(encode(SPACE, [candidate.architecture]))[0]])}

    budget = {"latency_ms": case.budget_ms}
    attempts = close_loop(propose, measure, budget, 0.0, reading_step_ms={"latency_ms": case.reading_step_ms})
    taken = best_of(attempts, budget).candidate.architecture
    return int(numbers_of(encode(SPACE, [taken]))[0]), len(attempts)


def summarise(cases: list[dict]) -> dict:
    """Summarise all cases of a variant; regret in points of accuracy."""
    regrets = [case["regret"] for case in cases]
    return {
        "cases": len(cases),
        "within_budget": float(np.mean([case["within"] for case in cases])),
        "mean_regret": round(float(np.mean(regrets)), 4),
        "worst_regret": round(float(np.max(regrets)), 4),
        "worst_excess_percent": round(max(case["excess_percent"] for case in cases), 2),
        "measurements": round(float(np.mean([case["measurements"] for case in cases])), 2),
    }


if __name__ == "__main__":
    main()
