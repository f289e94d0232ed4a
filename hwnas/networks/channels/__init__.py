"""Channels of a child network: which of them belong together, their masks, and the narrower network without some."""
