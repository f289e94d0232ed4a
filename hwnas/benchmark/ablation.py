"""The ablation of the choice by finalists: what parts of the evidence alone would have chosen for a target."""

from __future__ import annotations

import numpy as np

from hwnas.finalists.candidates import Candidates
from hwnas.finalists.judgement import LAST, Judgement, value_of
from hwnas.finalists.of_search import propose
from hwnas.search.search import Search
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture

SHORTLIST = 8  # architectures that the supernet's weights compare


def choices(search: Search, target: TargetState, judgement: Judgement) -> dict[str, Architecture]:
    """Return the architecture within the limits that is best by each kind of evidence.

    ``logits``: the search's own selection. ``supernet``: of the first of these that use the budget, the one with the
    best validation accuracy with the supernet's weights. ``scores``: the candidate with the largest sum of ranks in the
    training-free scores. ``finalists``: the one whose last training had the least validation loss.
    """
    chosen, evaluator = {}, search.evaluator
    if found := propose(search, target, target.limits, None):
        chosen["logits"] = found[0]
    candidates = Candidates(search.space, target.limits, search.recipe.inputs_per_node)
    ranking = (architecture for architecture, _ in evaluator.selection.best(evaluator, target, target.limits))
    if shortlist := candidates.using(ranking, SHORTLIST):
        chosen["supernet"] = max(shortlist, key=evaluator.validate)
    pool = judgement.pool
    own = np.flatnonzero(candidates.within(pool.choices))
    if by_scores := pool.by_scores(own):
        chosen["scores"] = pool.architectures[by_scores[0]]
    results = judgement.trained[LAST]
    if trained := [i for i in own.tolist() if i in results and not results[i].diverged]:
        chosen["finalists"] = pool.architectures[max(trained, key=lambda i: value_of(results[i]))]
    return chosen
