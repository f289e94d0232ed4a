"""Profile a device: plan the workloads, write models, run profilers on the device, compute the latency table."""
