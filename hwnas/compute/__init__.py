"""Device, numeric precision and random numbers of search and training."""
