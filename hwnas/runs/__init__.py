"""Runs and their folders: search, select, write, verify, evaluate, train, quantise."""
