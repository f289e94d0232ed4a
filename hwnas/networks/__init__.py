"""Networks built from a space: child networks, supernets, and their exact counts."""
