"""Print the targets of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hwnas.cli.output import show_table
from hwnas.text import quality_number

if TYPE_CHECKING:
    from hwnas.runs.schema import DeviceTiming, NetworkRow, SummaryRow


class TargetRow(Protocol):
    """A row about one target of a run."""

    @property
    def device(self) -> str: ...

    @property
    def budget(self) -> str: ...


def show_results(rows: Sequence[SummaryRow]) -> None:
    """Print the targets of a run: their limits, costs and accuracies, then their architectures and files.

    Where the search trained proxies, their accuracies are shown as such, and the sizes of both networks.
    """
    from hwnas.budgets.budget import format_amount
    from hwnas.cost.metric import Metric

    shown, proxies = [], any(row.proxy for row in rows)
    for row, timing in ((each, timing) for each in rows for timing in each.timings):
        measured = "-"
        if timing.measured_ms is not None:
            measured = f"{timing.measured_ms:.4g} ± {timing.measured_error_ms:.2g} ms" + " over" * (not timing.kept)
        limits = [format_amount(m, v) for m, v in row.limits.items() if Metric.parse(m).device in (None, timing.device)]
        shown.append(
            [
                name_on(row, timing.device, rows),
                ", ".join(limits),
                f"{timing.predicted_ms:.4g} ms",
                measured,
                f"{row.macs / 1e6:.2f} M",
                f"{row.params / 1e6:.4f} M",
                *_accuracies(row, proxies),
            ]
        )
    columns = ["budget", "limit", "predicted", "measured", "MACs", "params"]
    tested = "test perplexity" if any(_of_words(row) for row in rows) else "test accuracy"
    if proxies:
        columns += ["proxy val.", "proxy test", tested]
    else:
        columns += ["val. before training", "val. after", tested]
    show_table("", columns, shown)
    show_comparison(rows)
    for row in rows:
        print(f"{name_of(row, rows)}: {row.architecture}  {row.onnx}")
        if row.int8:
            file = Path(row.onnx).with_name(row.int8.onnx)
            print(f"{name_of(row, rows)}: in int8, {_test_accuracy(row.int8.test_accuracy)}  {file}")


def show_comparison(rows: Sequence[SummaryRow]) -> None:
    """Print the networks found beside the baselines within their budgets, where these were trained."""
    compared = [(row, network) for row in rows for network in row.comparison]
    if not compared:
        return
    shown = []
    for row, network in compared:
        *trained, used = network.describe()
        counts = f"{network.macs / 1e6:.2f} M", f"{network.params / 1e6:.4f} M"
        shown.append([name_of(row, rows), *trained, *counts, used])
    title = f"within the same budget, all trained as the finalists were, for {compared[0][1].epochs} epochs"
    columns = ["budget", "network", "val. loss", "val. accuracy", "predicted", "MACs", "params", "budget used"]
    show_table(title, columns, shown)


def _accuracies(row: SummaryRow, proxies: bool) -> list[str]:
    """Return the accuracies (of text the perplexities) of a network, or of its proxy and then its own."""
    own = "untrained" if row.accuracy is None else quality_number(row.accuracy, row.perplexity)
    if not proxies:
        before = quality_number(row.validation_accuracy_before_training, row.validation_perplexity_before_training)
        return [before, quality_number(row.validation_accuracy, row.validation_perplexity), own]
    if not (proxy := row.proxy):
        return ["-", "-", own]
    validated = quality_number(proxy.validation_accuracy, proxy.validation_perplexity)
    return [validated, quality_number(proxy.accuracy, proxy.perplexity), own]


def _of_words(row: SummaryRow) -> bool:
    return any(found is not None and found.perplexity is not None for found in (row, row.proxy))


def _test_accuracy(accuracy: float | None) -> str:
    return "untrained" if accuracy is None else f"test accuracy {accuracy:.1%}"


def name_of(row: TargetRow, rows: Sequence[TargetRow]) -> str:
    """Return the name of a target: its budget, after its device where there are several and the budget names none."""
    from hwnas.budgets.text import names_devices

    alone = names_devices(row.budget) or len({r.device for r in rows}) == 1
    return row.budget if alone else f"{row.device} {row.budget}"


def name_on(row: TargetRow, device: str, rows: Sequence[TargetRow]) -> str:
    """Return the name of a target on one of its devices."""
    from hwnas.budgets.text import names_devices

    return name_of(row, rows) + f" on {device}" * names_devices(row.budget)


def timings_of(row: NetworkRow) -> list[DeviceTiming]:
    """Return the latencies of a network; none for one that claims no budget."""
    from hwnas.runs.schema import SummaryRow

    return row.timings if isinstance(row, SummaryRow) else []


def show_timing(name: str, timing: DeviceTiming) -> None:
    """Print the measured latency of the network called ``name`` beside prediction and limit, if it was measured."""
    if timing.measured_ms is None:
        return
    predicted = "" if timing.predicted_ms is None else f", {timing.predicted_ms:.4g} ms predicted"
    limit = "" if timing.budget_ms is None else f", limit {timing.budget_ms:.4g} ms"
    print(
        f"{name}: {timing.measured_ms:.4g} ± {timing.measured_error_ms:.2g} ms "
        f"measured{predicted}{limit}: {'keeps' if timing.kept else 'BREAKS'} its budget"
    )
