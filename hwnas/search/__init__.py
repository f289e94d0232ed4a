"""Search methods on one loop."""
