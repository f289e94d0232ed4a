"""Accuracy of predicted latencies on networks that were timed and that no fit has seen."""

from __future__ import annotations

import numpy as np

from hwnas.cost.model import Array
from hwnas.tables.schema import Additivity


def held_out_accuracy(predicted_ms: Array, measured_ms: Array, floor: float | None) -> Additivity:
    """Compare the predicted latencies [N] of held-out networks with the measured ones [N].

    ``floor`` is the mean difference in percent between two measurements of the same network; None where it is unknown.
    """
    from scipy.stats import kendalltau  # takes most of a second to import

    error = predicted_ms / measured_ms - 1
    tau = float(kendalltau(predicted_ms, measured_ms).statistic)
    return Additivity(
        networks=len(error),
        mape=float(100 * np.mean(np.abs(error))),
        within_5_percent=float(np.mean(np.abs(error) <= 0.05)),
        within_10_percent=float(np.mean(np.abs(error) <= 0.1)),
        kendall_tau=tau if np.isfinite(tau) else None,
        worst=float(100 * np.max(np.abs(error))),
        bias=float(100 * np.mean(error)),
        floor=floor,
    )
