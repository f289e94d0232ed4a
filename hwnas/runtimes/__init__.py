"""Runtimes: one file for each, the registry of them, and the device specs that name them."""
