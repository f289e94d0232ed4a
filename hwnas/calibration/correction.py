"""Correction of sums of entries: factors for families of operations, fitted on a few whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from hwnas.cost.fusion import FAMILIES
from hwnas.cost.model import family_sums
from hwnas.runtimes.runtime import Rewrite
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import Correction, LatencyTable

REWRITES: tuple[tuple[Rewrite, ...], ...] = ((), ("share",), ("fuse",), ("share", "fuse"))
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
FUSED_SHARE = 0.5  # expected cost of a fused addition, relative to a plain one: it reads one tensor instead of two
Array = NDArray[np.float64]


def fit_correction(
    table: LatencyTable,
    sized: SizedSpace,
    choices: NDArray[np.intp],
    measured_ms: Array,
    rewrites: Sequence[Rewrite] | None = None,
) -> Correction:
    """Fit offset and factors to the latencies ``measured_ms`` [N] of the networks ``choices`` [N, edges of all cells].

    A ridge pulls the factors towards a common scale. Its strength is the one with the least mean relative error of
    leave-one-out predictions; so is the set of rewrites where ``rewrites`` is None. Factors are not negative, and a
    fused addition costs no more than a plain one.
    """
    best: tuple[float, Correction] | None = None
    for chosen in REWRITES if rewrites is None else [rewrites]:
        sums = family_sums(table, sized, choices, chosen)
        for strength in STRENGTHS:
            fits = [_fit(sums, measured_ms, chosen, strength, leave) for leave in range(len(choices))]
            error = np.mean([abs(_predict(fit, sums)[n] / measured_ms[n] - 1) for n, fit in enumerate(fits)])
            if best is None or error < 0.98 * best[0]:  # of two that are about as good, the simpler one
                best = float(error), _fit(sums, measured_ms, chosen, strength)
    assert best
    return best[1]


def _fit(
    sums: Mapping[str, Array], measured_ms: Array, rewrites: Sequence[Rewrite], strength: float, leave: int = -1
) -> Correction:
    """Minimise the squared relative error plus ``strength`` times the squared pull of each family's share of the time.

    The unknowns are offset, scale and one factor for each family; all but the offset are not negative. The scale is the
    factor of ``fixed``. Additions appear twice, once all of them and once the plain ones alone, so that a fused one
    costs no more. The network ``leave`` is left out.
    """
    kept = np.arange(len(measured_ms)) != leave
    fuse = "fuse" in rewrites
    terms = {name: sums[name] for name in FAMILIES}
    terms["fused_sum"] = sums["sum"] + sums["fused_sum"]
    prior = dict.fromkeys(FAMILIES, 1.0) | {"sum": 1 - FUSED_SHARE, "fused_sum": FUSED_SHARE}
    if not fuse:
        terms["sum"] = np.zeros_like(sums["sum"])
        prior["fused_sum"] = 1.0
    names = [name for name in FAMILIES if np.any(terms[name])]
    relative = {name: terms[name][kept] / measured_ms[kept] for name in names}
    fixed = sums["fixed"][kept] / measured_ms[kept]
    design = np.stack([1 / measured_ms[kept], fixed, *relative.values()], axis=1)
    # A faint pull of the scale towards 1 keeps it apart from the offset when all networks are alike.
    pulls, wanted = np.zeros((len(names) + 1, len(names) + 2)), np.zeros(len(names) + 1)
    pulls[-1, 1] = wanted[-1] = np.sqrt(1e-4 * kept.sum())
    for number, name in enumerate(names):
        weight = np.sqrt(strength * np.sum(relative[name] ** 2))
        pulls[number, [1, 2 + number]] = -prior[name] * weight, weight
    lower = np.array([-np.inf, 0.1, *(0.0 for _ in names)])
    upper = np.full(len(lower), np.inf)
    rows, targets = np.concatenate([design, pulls]), np.concatenate([np.ones(kept.sum()), wanted])
    offset_ms, scale, *found = (float(x) for x in lsq_linear(rows, targets, bounds=(lower, upper)).x)
    factors: dict[str, float] = dict(zip(names, found, strict=True))
    if "fused_sum" in factors:
        factors["sum"] = factors["fused_sum"] + factors.get("sum", 0.0)
        if not fuse:
            del factors["fused_sum"]
    return Correction(
        offset_ms=offset_ms, scale=scale, factors=factors, rewrites=list(rewrites), networks=int(kept.sum())
    )


def _predict(correction: Correction, sums: Mapping[str, Array]) -> Array:
    total = correction.offset_ms + correction.scale * sums["fixed"]
    for name in FAMILIES:
        total = total + correction.factor(name) * sums[name]
    return np.asarray(total)
