"""A Markdown page that lists the tables of a registry."""

from __future__ import annotations

from hwnas.sharing.listing import Listed
from hwnas.sharing.records import Description
from hwnas.tables.schema import NOT_KNOWN
from hwnas.text import printable

COLUMNS = ("table", "device", "runtime", "networks", "mean error, Kendall tau", "provenance", "made", "licence")


def registry_page(title: str, listed: list[Listed]) -> str:
    """Return a Markdown page with one row for each table, sorted by name, or the error of an unreadable table."""
    lines = [f"# {_cell(title)}", "", "Written by `hwnas table page`; do not edit.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for table in sorted(listed, key=lambda table: table.name):
        described = table.description
        cells = [f"`{table.name}`", *(_cells(described) if described else (table.error, *("",) * (len(COLUMNS) - 2)))]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(described: Description) -> tuple[str, ...]:
    quality = [
        f"{network}: {known.mape:.1f} %" + ("" if known.kendall_tau is None else f", {known.kendall_tau:.3f}")
        for network in described.networks
        if (known := described.quality.get(network))
    ]
    noisy = ["made on a noisy machine"] * described.noisy
    return (
        described.device,
        describe_runtime(described),
        "; ".join(described.networks),
        "; ".join([*quality, *noisy]) or "not known",
        described.provenance,
        described.date[:10],
        described.licence or "not stated",
    )


def describe_runtime(described: Description) -> str:
    """Return the runtime, precision, threads and batch size, as far as they are known."""
    threads = f"{described.threads} thread{'s' * (described.threads > 1)}" if described.threads else ""
    batch = f"batch {described.batch}" if described.batch else ""
    known = [described.runtime, described.runtime_version, described.precision]
    runtime = " ".join(dict.fromkeys(part for part in known if part != NOT_KNOWN))
    return ", ".join(part for part in (runtime or f"runtime {NOT_KNOWN}", threads, batch) if part)


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
