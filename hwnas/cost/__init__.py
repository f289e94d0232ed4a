"""Metrics, and cost models of architectures. Only the tensor view and the counts of modules import torch."""
