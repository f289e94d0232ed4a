"""Read tables of FBNet's space: those of HW-NAS-Bench, dumped as JSON, and those of NNI.

* HW-NAS-Bench: ``key: number`` with keys such as ``ConvBlock_H56_W56_Cin24_Cout32_exp3_kernel5_stride2_group1``, as
  JSON or in two columns of a CSV file.
* NNI: objects ``{'op_name': 'mb_k3_e2_res', 'op_data_shape': (width, height, in, out, stride), 'op_dtype': 'float',
  'op_latency': 1.2}``, as JSON or Python literals, each on a line or over several, alone or in a list; or columns under
  a heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hwnas.csv_files import CsvFile, heading_of, parse_csv
from hwnas.errors import HwnasError
from hwnas.files import parse_json
from hwnas.literals import closing_bracket, parse_literal
from hwnas.tables.importers import blocks
from hwnas.tables.importers.blocks import Block
from hwnas.tables.importers.keyed_csv import read_keyed_csv
from hwnas.tables.importers.parsed import N, ParsedFile
from hwnas.tables.importers.table import CHOOSE_FORMAT
from hwnas.tables.schema import NOT_KNOWN


def read_hw_nas_bench(text: str, name: str) -> ParsedFile:
    """Read a table of HW-NAS-Bench's keys. Raises HwnasError for several tables in one file."""
    rows = read_keyed_csv(text, name)
    if rows:
        parsed = ParsedFile(refused=dict(rows.refused), unit=rows.unit, statistic=rows.statistic or NOT_KNOWN)
        content: Any = rows.latencies
        parsed.unknown.update(column for others in rows.others.values() for column in others)
    else:
        parsed, content = ParsedFile(), parse_json(text.encode(), name, CHOOSE_FORMAT)
    if not isinstance(content, dict):
        raise HwnasError(f"{name} is not an object of keys and numbers", CHOOSE_FORMAT)
    if content and all(isinstance(value, dict) for value in content.values()):
        listed = ", ".join(list(content)[:10])
        raise HwnasError(
            f"{name} holds several tables ({listed[:200]})", "write the one of your device's latency into a file alone"
        )
    for key, value in content.items():
        parsed.add(key, lambda key=key: hw_nas_bench_key(key), value)  # type: ignore[misc]
    return parsed


def hw_nas_bench_key(key: str) -> tuple[Block, int, int]:
    """Return block, height and width of a key of HW-NAS-Bench. Raises ValueError for another key."""
    size = f"_H{N}_W{N}_Cin{N}_Cout{N}"
    if found := re.fullmatch(f"ConvNorm{size}_kernel{N}_stride{N}_group{N}", key):
        height, width, channels, out, kernel, stride, groups = map(int, found.groups())
        _check_groups(groups, channels, out)
        return blocks.conv(channels, out, kernel, stride, "bn_relu", groups), height, width
    if found := re.fullmatch(f"ConvBlock{size}_exp{N}_kernel{N}_stride{N}_group{N}", key):
        height, width, channels, out, expand, kernel, stride, groups = map(int, found.groups())
        _check_groups(groups, channels, out)
        adds = stride == 1 and channels == out
        return blocks.inverted_residual(channels, out, kernel, stride, expand, adds, groups), height, width
    if found := re.fullmatch(f"Skip{size}_stride{N}", key):
        height, width, channels, out, stride = map(int, found.groups())
        return blocks.skip(channels, out, stride), height, width
    if found := re.fullmatch(f"AvgP{size}_kernel{N}_stride{N}", key):
        height, width, channels, out, kernel, _ = map(int, found.groups())
        if channels != out or {height, width} != {kernel}:
            raise ValueError("not an average over the whole image")
        return blocks.global_pool(channels), height, width
    if found := re.fullmatch(f"FC_Cin{N}_Cout{N}", key):
        return blocks.linear(int(found[1]), int(found[2]), pooled=False), 1, 1
    raise ValueError("not a known operation of HW-NAS-Bench's FBNet space")


def _check_groups(groups: int, *channels: int) -> None:
    if groups < 1 or any(count % groups for count in channels):
        raise ValueError(f"{groups} groups do not divide its channels")


def read_fbnet(text: str, name: str, precision: str | None) -> ParsedFile:
    """Read a table of NNI's FBNet. ``precision`` selects one of several data types.

    Raises HwnasError for a table by layer number, and for several data types without ``precision``.
    """
    parsed = ParsedFile()
    records = dict(_fbnet_records(text, name, parsed))
    fields = ("op_name", "op_data_shape", "op_dtype", "op_latency")
    for line in [line for line, record in records.items() if any(key not in record for key in fields)]:
        missing = [key for key in fields if key not in records.pop(line)]
        parsed.refused[line] = f"it has no {', '.join(missing)}"
    dtypes = sorted({_dtype(record["op_dtype"]) for record in records.values()})
    chosen = precision or (dtypes[0] if len(dtypes) == 1 else None)
    if dtypes and chosen is None:
        raise HwnasError(f"{name} holds several data types: {', '.join(dtypes)[:100]}", "choose one with --precision")
    parsed.precision = chosen
    for line, record in records.items():
        if _dtype(record["op_dtype"]) != chosen:
            parsed.refused[line] = f"its data type is {_dtype(record['op_dtype'])}, not {chosen}"
            continue
        parsed.add(line, lambda record=record: fbnet_operation(record), record["op_latency"])  # type: ignore[misc]
        parsed.unknown.update(str(key) for key in set(record) - set(fields))
    return parsed


def _dtype(value: object) -> str:
    text = str(value)[:40]
    return {"float": "float32"}.get(text, text)


def _fbnet_records(text: str, name: str, parsed: ParsedFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, record) for every record; what is not a record goes to ``parsed.refused``."""
    if {"op_name", "op_latency"} <= set(heading_of(text)):
        yield from _in_columns(parse_csv(text, name, CHOOSE_FORMAT), parsed)
        return
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    heading = lines[0][1] if lines else []
    if {"op_name", "op_latency"} <= set(heading):
        for number, words in lines[1:]:
            if len(words) == len(heading):
                yield f"line {number}", dict(zip(heading, words, strict=True))
            else:
                parsed.refused[f"line {number}"] = f"it has {len(words)} columns, the heading {len(heading)}"
        return
    if "{" not in text:
        if text.lstrip().startswith("["):
            parse_json(text.encode(), name, CHOOSE_FORMAT)
            raise _by_layer_number(name)
        if len(lines) > 1 and all(_is_number(word) for _, words in lines[1:] for word in words):
            raise _by_layer_number(name)
    number = 0
    for line, part in _objects(text):
        records = list(_records_of(_literal(part))) if part.startswith("{") else []
        if not records:
            parsed.refused[f"line {line}"] = "it is not an object"
        for record in records:
            number += 1
            yield f"record {number} (line {line})", record


def _in_columns(file: CsvFile, parsed: ParsedFile) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in file.rows:
        try:
            yield f"line {row.line}", {column: cell for column, cell in file.record(row).items() if column}
        except ValueError as error:
            parsed.refused[f"line {row.line}"] = str(error)


def _objects(text: str) -> Iterator[tuple[int, str]]:
    """Yield every outermost ``{…}`` of a text, and every other line but a list's brackets and commas.

    Each comes with its first line's number. Behind a bracket that is not closed, lines are taken one by one.
    """
    position, line = 0, 1
    while (start := text.find("{", position)) >= 0 and (end := closing_bracket(text, start)) is not None:
        between = text[position:start]
        yield from _lines(between, line)
        line += between.count("\n")
        yield line, text[start : end + 1]
        line += text.count("\n", start, end)
        position = end + 1
    yield from _lines(text[position:], line)


def _lines(text: str, first: int) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), first):
        if line.strip(" \t\r,[]"):
            yield number, line.strip()


def _records_of(value: object) -> Iterator[dict[str, Any]]:
    """Yield the records in a parsed object: itself, its columns' rows, or the records in a list that it holds."""
    if not isinstance(value, dict):
        return
    columns = {str(key): list(c.values()) if isinstance(c, dict) else c for key, c in value.items()}
    if "op_name" not in columns:
        for inner in columns.values():
            for item in inner if isinstance(inner, list) else ():
                yield from _records_of(item)
    elif all(isinstance(column, list) for column in columns.values()) and len(set(map(len, columns.values()))) == 1:
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    else:
        yield value


def _by_layer_number(name: str) -> HwnasError:
    return HwnasError(
        f"{name} lists latencies by layer number and does not give the sizes of the layers",
        "write a line {'op_name', 'op_data_shape', 'op_dtype', 'op_latency'} for each",
    )


def _literal(text: str) -> object:
    """Return the value of a JSON or Python literal, or None for another text."""
    try:
        return parse_literal(text)
    except ValueError:
        return None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def fbnet_operation(record: Mapping[str, Any]) -> tuple[Block, int, int]:
    """Return block, height and width of a record of NNI's FBNet. Raises ValueError for an unknown operation."""
    shape = record["op_data_shape"]
    sizes = re.findall(r"\d+", shape) if isinstance(shape, str) else shape
    if not isinstance(sizes, list | tuple) or len(sizes) != 5 or not all(re.fullmatch(N, str(size)) for size in sizes):
        raise ValueError("its shape is not (width, height, in, out, stride)")
    width, height, channels, out, stride = (int(size) for size in sizes)
    return _fbnet_block(str(record["op_name"]), channels, out, stride), height, width


def _fbnet_block(op: str, channels: int, out: int, stride: int) -> Block:
    if found := re.fullmatch(r"mb_k([35])(?:_e(\d))?(_res)?(?:_d([23]))?", op):
        dilation = int(found[4] or 1)
        expand = int(found[2] or (1 if dilation == 1 else 2))  # in NNI, dilated blocks widen twice
        adds = bool(found[3]) and stride == 1
        if adds and channels != out:
            raise ValueError("it adds its input to an output of another size")
        return blocks.inverted_residual(channels, out, int(found[1]), stride, expand, adds, dilation=dilation)
    if found := re.fullmatch(r"ir_k([357])_e(\d)", op):
        adds = stride == 1 and channels == out
        return blocks.inverted_residual(channels, out, int(found[1]), stride, int(found[2]), adds)
    if found := re.fullmatch(r"(sep|gh)_k([35])", op):
        if found[1] == "sep":
            return blocks.separable(channels, out, int(found[2]), stride)
        if out % 2:
            raise ValueError("its output has two halves, and the number of channels is odd")
        return blocks.ghost(channels, out, int(found[2]), stride)
    if op == "conv1x1":
        return blocks.conv(channels, out, 1, stride, "bias_relu")
    if op == "depth_conv":
        return blocks.depth_conv(channels, out, stride)
    if op == "skip":
        return blocks.skip(channels, out, stride)
    raise ValueError(f"what {op[:40]!r} is made of is not known, so its MACs and parameters are not")
