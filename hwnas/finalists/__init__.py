"""Choose a target's architecture by evidence: a shortlist within the budget, whose finalists are trained for real."""
