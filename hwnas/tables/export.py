"""Write a table as rows of CSV or Parquet: one for each entry, and one for each edge and operation of edge costs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError
from hwnas.files import atomic_path, canonical_json
from hwnas.imports import require_extra
from hwnas.tables.schema import LatencyTable

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]

SUFFIXES = (".csv", ".parquet")
# Columns and their types; numbers keep every digit. A row of kind "edge" has a network, cell and edge instead of
# channels, height, width and stride; its latency_ms is live_ms + always_ms.
COLUMNS: dict[str, type] = {
    "kind": str,
    "op": str,
    "in_channels": int,
    "out_channels": int,
    "height": int,
    "width": int,
    "stride": int,
    "network": str,
    "cell": str,
    "edge": int,
    "latency_ms": float,
    "live_ms": float,
    "always_ms": float,
    "error_ms": float,
    "p10_ms": float,
    "p90_ms": float,
    "samples": int,
    "macs": int,
    "macs_conv_linear": int,
    "params": int,
}
# Columns with the same value in every row: device, runtime and origin of the table.
TABLE_COLUMNS: dict[str, type] = {
    **{f"device_{name}": str for name in ("name", "kind", "model")},
    "device_cores": int,
    "device_memory_bytes": int,
    "device_os": str,
    "device_fingerprint": str,
    **{f"runtime_{name}": str for name in ("name", "version", "provider", "precision")},
    "runtime_threads": int,
    "runtime_batch": int,
    "runtime_options": str,
    "protocol_version": int,
    "protocol_statistic": str,
    "protocol_date": str,
    "protocol_tool_version": str,
    "sentinel_ms": float,
    "provenance": str,
    "source": str,
    "licence": str,
    "table_sha256": str,
}
ENTRY_FIELDS = tuple(
    name for name in COLUMNS if name not in ("kind", "network", "cell", "edge", "live_ms", "always_ms")
)


def table_rows(table: LatencyTable) -> list[dict[str, Any]]:
    """Return every row without the columns of TABLE_COLUMNS; a row has only the keys that it has values for."""
    rows: list[dict[str, Any]] = [
        {"kind": "entry", **{name: getattr(entry, name) for name in ENTRY_FIELDS}}
        for entry in sorted(table.entries, key=lambda entry: entry.workload)
    ]
    for network, costs in table.edge_costs.items():
        for kind, cell in costs.cells.items():
            for edge, always in enumerate(cell.always_ms):
                for number, op in enumerate(costs.operations):
                    live_ms, always_ms = cell.live_ms[edge][number], always[number]
                    rows.append(
                        {
                            "kind": "edge",
                            "op": op,
                            "network": network,
                            "cell": kind,
                            "edge": edge,
                            "latency_ms": live_ms + always_ms,
                            "live_ms": live_ms,
                            "always_ms": always_ms,
                            "error_ms": cell.error_ms[edge][number],
                            "macs": cell.macs[edge][number],
                            "params": cell.params[edge][number],
                        }
                    )
    return rows


def table_values(table: LatencyTable) -> dict[str, Any]:
    """Return the values of TABLE_COLUMNS, which are the same in every row."""
    device, runtime, protocol = table.device, table.runtime, table.protocol
    return {
        **{f"device_{name}": value for name, value in device.model_dump().items()},
        **{f"runtime_{name}": value for name, value in runtime.model_dump().items()},
        "runtime_options": canonical_json(runtime.options),
        **{f"protocol_{name}": getattr(protocol, name) for name in ("version", "statistic", "date", "tool_version")},
        "sentinel_ms": table.quality.sentinel_ms,
        "provenance": table.provenance,
        "source": table.source,
        "licence": table.licence,
        "table_sha256": table.sha256,
    }


def export_table(table: LatencyTable, out: Path) -> int:
    """Write a table's rows as CSV or Parquet, by the suffix of ``out``; return the number of rows.

    Raises HwnasError for another suffix, a table without rows, and a folder that cannot be written.
    """
    if out.suffix not in SUFFIXES:
        raise HwnasError(f"unknown format of {out.name!r}", f"let --out end in {' or '.join(SUFFIXES)}")
    rows = table_rows(table)
    if not rows:
        raise HwnasError("the table holds no entries", "measure some with 'hwnas profile'")
    same = table_values(table)
    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            _write_csv(temporary, rows, same)
        else:
            _write_parquet(temporary, rows, same)
    return len(rows)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], same: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        # Quote text, so that no reader takes a hash for a number or a carriage return for the end of a row.
        columns = [*COLUMNS, *TABLE_COLUMNS]
        writer = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows({**row, **same} for row in rows)


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]], same: dict[str, Any]) -> None:
    require_extra("pyarrow", "report", "writing a Parquet file")
    import pyarrow
    from pyarrow import parquet

    types: dict[type, pyarrow.DataType] = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in (COLUMNS | TABLE_COLUMNS).items()])
    try:
        table = pyarrow.Table.from_pylist([{**row, **same} for row in rows], schema=schema)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError) as error:
        raise HwnasError(f"a number of the table does not fit into Parquet ({error})", "export it as .csv") from None
    parquet.write_table(table, path)
