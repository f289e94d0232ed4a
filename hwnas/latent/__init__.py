"""Search in the latent space of a graph autoencoder: cells as graphs, the autoencoder, its measures, proposals."""
