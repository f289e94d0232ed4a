"""Table registries (``--shelf``): folders and fsspec URLs that hold latency tables by name, optionally signed."""
