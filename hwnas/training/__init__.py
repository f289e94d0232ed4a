"""Training: checkpoints, optimisers, child networks."""
