"""Cost models, budgets and derivation within them. Nothing here imports torch except the tensor view."""
