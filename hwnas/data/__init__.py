"""Data sets: images in separate training, validation and test splits."""

from hwnas.data.images import ImageData, Split
from hwnas.data.sources import load_data

__all__ = ["ImageData", "Split", "load_data"]
