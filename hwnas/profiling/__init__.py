"""Enumerating workloads, writing models for a runtime, driving a profiler, assembling the table."""
