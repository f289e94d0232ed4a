"""Latency tables: the format, reading and writing. Nothing here imports torch."""
