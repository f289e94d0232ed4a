"""Latency tables from whole networks' latencies, with the tables of other devices as a prior."""
