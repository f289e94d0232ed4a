"""The ONNX opset in which a network ships: that of the models which its tables were measured with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.runtimes.opset import OPSET, opset_of
from hwnas.runtimes.registry import RUNTIMES
from hwnas.tables.schema import LatencyTable


def opset_for(tables: Mapping[str, LatencyTable]) -> int:
    """Return the opset of the one ONNX file that ships to the devices of ``tables``.

    Tables of runtimes that read no ONNX file ask for none. Raises HwnasError when two tables ask for different opsets.
    """
    asked = {device: opset_of(table.runtime.options) for device, table in tables.items() if _reads_onnx(table)}
    if len(set(asked.values())) > 1:
        listed = ", ".join(f"{opset} by {device}" for device, opset in asked.items())
        raise HwnasError(
            f"one network for several devices is one ONNX file, and their tables are of several opsets: {listed}",
            "profile the devices with one opset=, or give each a budget of its own",
        )
    return next(iter(asked.values()), OPSET)


def file_opset(path: Path) -> int:
    """Return the opset of an ONNX file."""
    import onnx

    imports = onnx.load(path, load_external_data=False).opset_import
    return max(imported.version for imported in imports if imported.domain in ("", "ai.onnx"))


def _reads_onnx(table: LatencyTable) -> bool:
    runtime = RUNTIMES.get(table.runtime.name)
    return runtime is not None and runtime.suffix == ".onnx"
