"""Read tables of FBNet's space: those of HW-NAS-Bench, dumped as JSON, and those of NNI.

* HW-NAS-Bench: ``key: number`` with keys such as ``ConvBlock_H56_W56_Cin24_Cout32_exp3_kernel5_stride2_group1``.
* NNI: one object on each line, as JSON or a Python literal, or columns under a heading: ``{'op_name': 'mb_k3_e2_res',
  'op_data_shape': (width, height, in, out, stride), 'op_dtype': 'float', 'op_latency': 1.2}``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hwnas.errors import HwnasError
from hwnas.files import parse_json
from hwnas.tables.importers import blocks
from hwnas.tables.importers.blocks import Block
from hwnas.tables.importers.parsed import N, ParsedFile
from hwnas.tables.importers.table import CHOOSE_FORMAT

LONGEST_LINE = 10_000


def read_hw_nas_bench(text: str, name: str) -> ParsedFile:
    content = parse_json(text.encode(), name, CHOOSE_FORMAT)
    if not isinstance(content, dict):
        raise HwnasError(f"{name} is not an object of keys and numbers", CHOOSE_FORMAT)
    if content and all(isinstance(value, dict) for value in content.values()):
        listed = ", ".join(list(content)[:10])
        raise HwnasError(
            f"{name} holds several tables ({listed[:200]})", "write the one of your device's latency into a file alone"
        )
    parsed = ParsedFile()
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
    """Yield (name, record) for every record; a line that is not a record goes to ``parsed.refused``."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if text.lstrip().startswith("["):
        content = parse_json(text.encode(), name, CHOOSE_FORMAT)
        if not all(isinstance(record, dict) for record in content):
            raise _by_layer_number(name)
        yield from ((f"record {number}", record) for number, record in enumerate(content, 1))
        return
    heading = lines[0][1].split() if lines else []
    if {"op_name", "op_latency"} <= set(heading):
        for number, line in lines[1:]:
            words = line.split()
            if len(words) == len(heading):
                yield f"line {number}", dict(zip(heading, words, strict=True))
            else:
                parsed.refused[f"line {number}"] = f"it has {len(words)} columns, the heading {len(heading)}"
        return
    if heading and all(_is_number(word) for _, line in lines[1:] for word in line.split()) and len(lines) > 1:
        raise _by_layer_number(name)
    for number, line in lines:
        record = _literal(line)
        if isinstance(record, dict):
            yield f"line {number}", record
        else:
            parsed.refused[f"line {number}"] = "it is not an object"


def _by_layer_number(name: str) -> HwnasError:
    return HwnasError(
        f"{name} lists latencies by layer number and does not give the sizes of the layers",
        "write a line {'op_name', 'op_data_shape', 'op_dtype', 'op_latency'} for each",
    )


def _literal(line: str) -> object:
    if len(line) > LONGEST_LINE:
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
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
