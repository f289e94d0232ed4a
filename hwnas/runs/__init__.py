"""A run's folder: search, select, write, verify, evaluate, train, quantize."""
