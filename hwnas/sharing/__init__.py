"""Shelves: folders and fsspec URLs on which latency tables are shared, by name, whole and optionally signed."""
