"""Benchmarks of search methods in spaces where the accuracy of every architecture has been published."""
