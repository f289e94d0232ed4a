"""Connections to devices: each runs a profiler there and yields the lines that it prints."""
