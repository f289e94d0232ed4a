"""Scores of architectures that need no training: counts, and functions of networks with random weights."""
