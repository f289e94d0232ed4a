"""Hardware-aware neural architecture search: measured latency tables, budgets that hold, ONNX out."""

from hwnas.errors import HwnasError

__all__ = ["HwnasError", "__version__"]
__version__ = "0.1.0"
