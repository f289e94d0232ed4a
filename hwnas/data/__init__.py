"""Data sets: images with train, validation and test kept apart."""

from hwnas.data.images import ImageData, Split
from hwnas.data.sources import load_data

__all__ = ["ImageData", "Split", "load_data"]
