"""A page in Markdown that shows what is on a shelf."""

from __future__ import annotations

from hwnas.sharing.records import Description, printable
from hwnas.sharing.registry import Listed
from hwnas.tables.schema import NOT_KNOWN

COLUMNS = ("table", "device", "runtime", "networks", "mean error, Kendall tau", "provenance", "made", "licence")


def page(title: str, listed: list[Listed]) -> str:
    """One row a table, sorted by name. A table that cannot be read is listed with what is wrong with it."""
    lines = [f"# {_cell(title)}", "", "Written by `hwnas table page`; do not edit.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for table in sorted(listed, key=lambda table: table.name):
        what = table.description
        cells = [f"`{table.name}`", *(_cells(what) if what else (table.error, *("",) * (len(COLUMNS) - 2)))]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(what: Description) -> tuple[str, ...]:
    quality = [
        f"{network}: {known.mape:.1f} %" + ("" if known.kendall_tau is None else f", {known.kendall_tau:.3f}")
        for network in what.networks
        if (known := what.quality.get(network))
    ]
    noisy = ["made on a noisy machine"] * what.noisy
    return (
        what.device,
        how(what),
        "; ".join(what.networks),
        "; ".join([*quality, *noisy]) or "not known",
        what.provenance,
        what.date[:10],
        what.licence or "not stated",
    )


def how(what: Description) -> str:
    """The runtime and how it was run, as far as it is known."""
    threads = f"{what.threads} thread{'s' * (what.threads > 1)}" if what.threads else ""
    batch = f"batch {what.batch}" if what.batch else ""
    known = [what.runtime, what.runtime_version, what.precision]
    runtime = " ".join(dict.fromkeys(part for part in known if part != NOT_KNOWN))
    return ", ".join(part for part in (runtime or f"runtime {NOT_KNOWN}", threads, batch) if part)


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
