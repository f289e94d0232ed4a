"""Networks as torch modules: the child, the plain supernet, and ``fast``, which accelerates the supernet."""
