"""Runtimes: how models are written for each, and which device specs name it."""
