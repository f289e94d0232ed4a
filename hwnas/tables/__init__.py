"""Latency tables: format, reading and writing, checks, comparison, conversion. Does not import torch."""
