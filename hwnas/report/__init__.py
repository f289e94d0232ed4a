"""Reports of runs, benchmarks and latency tables: one page, with figures and numbers as files."""
