"""Read tables of ProxylessNAS and once-for-all (MobileNetV3), YAML or JSON: ``key: {mean, var, count}``, or CSV.

A key is ``expanded_conv-input:56x56x24-output:28x28x32-expand:3-kernel:5-stride:2-idskip:0`` (height, width, channels;
in once-for-all followed by ``-se:1-hs:1``, where ``expand`` is the number of channels in the middle), or begins with
Conv, Conv_1, Conv_2, AvgPool2D or Logits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hwnas.errors import HwnasError
from hwnas.files import parse_json
from hwnas.spaces.mobile_blocks import Activation
from hwnas.tables.importers import blocks
from hwnas.tables.importers.blocks import Block
from hwnas.tables.importers.keyed_csv import KeyedCsv, read_keyed_csv
from hwnas.tables.importers.parsed import N, ParsedFile
from hwnas.tables.importers.table import CHOOSE_FORMAT
from hwnas.tables.schema import NOT_KNOWN

SHAPE = f"{N}x{N}x{N}"
# They describe the scatter of readings within one process, not the error of another run.
NOT_USED = ("count", "var", "std")


def read_layers(text: str, name: str, read_key: Callable[[str], tuple[Block, int, int]]) -> ParsedFile:
    """Read a table of ``key: {mean, …}``, in milliseconds, or of ``key: latency``, or a CSV file of keys.

    ``read_key`` parses a key.
    """
    if rows := read_keyed_csv(text, name):
        return _of_rows(rows, read_key)
    parsed = ParsedFile(usual_unit="ms", statistic="mean")  # both projects take their means as milliseconds
    for key, value in _mapping(text, name).items():
        if isinstance(value, Mapping) and "mean" in value:
            parsed.add(key, lambda key=key: read_key(key), value["mean"])  # type: ignore[misc]
            _count_fields(parsed, value)
        elif isinstance(value, str | int | float):  # another program wrote it, in a unit of its own
            parsed.add(key, lambda key=key: read_key(key), value)  # type: ignore[misc]
            parsed.usual_unit, parsed.statistic = None, NOT_KNOWN
        else:
            parsed.refused[key] = "it has no mean"
    return parsed


def _of_rows(rows: KeyedCsv, read_key: Callable[[str], tuple[Block, int, int]]) -> ParsedFile:
    parsed = ParsedFile(refused=dict(rows.refused), unit=rows.unit, statistic=rows.statistic or NOT_KNOWN)
    for key, latency in rows.latencies.items():
        parsed.add(key, lambda key=key: read_key(key), latency)  # type: ignore[misc]
        _count_fields(parsed, rows.others[key])
    return parsed


def _count_fields(parsed: ParsedFile, fields: Iterable[Any]) -> None:
    for other in set(fields) - {"mean"}:
        (parsed.unused if other in NOT_USED else parsed.unknown)[str(other)] += 1


def proxyless_key(key: str) -> tuple[Block, int, int]:
    """Return block, height and width of a key of ProxylessNAS. Raises ValueError for another key."""
    if found := re.fullmatch(f"(Conv|Conv_1)-input:{SHAPE}-output:{SHAPE}", key):
        height, width, channels, *output = map(int, found.groups()[1:])
        stride = _stride((height, width), output[:2], (1, 2) if found[1] == "Conv" else (1,))
        return blocks.conv(channels, output[2], 3 if found[1] == "Conv" else 1, stride, "bn_relu6"), height, width
    if found := re.fullmatch(f"Logits-input:{SHAPE}-output:{N}", key):
        height, width, channels, classes = map(int, found.groups())
        return blocks.linear(channels, classes, pooled=True), height, width
    if re.search(r"-(se|hs):\d", key):
        raise ValueError("a key of once-for-all, not of ProxylessNAS")
    if found := re.fullmatch(
        f"expanded_conv-input:{SHAPE}-output:{SHAPE}-expand:{N}-kernel:{N}-stride:{N}-idskip:([01])", key
    ):
        height, width, channels, _, _, out, expand, kernel, stride, adds = map(int, found.groups())
        _check_mbconv(found, stride, adds)
        block = blocks.mbconv(channels, out, kernel, stride, channels * expand, "relu6", bool(adds))
        return block, height, width
    raise ValueError("not a known layer of ProxylessNAS")


def ofa_key(key: str) -> tuple[Block, int, int]:
    """Return block, height and width of a key of once-for-all's MobileNetV3. Raises ValueError for another key."""
    if found := re.fullmatch(f"(Conv|Conv_1|Conv_2|AvgPool2D)-input:{SHAPE}-output:{SHAPE}", key):
        kind, (height, width, channels, *output) = found[1], map(int, found.groups()[1:])
        if kind == "AvgPool2D":
            if output != [1, 1, channels]:
                raise ValueError("not an average over the whole image")
            return blocks.global_pool(channels), height, width
        stride = _stride((height, width), output[:2], (1, 2) if kind == "Conv" else (1,))
        form = "hswish" if kind == "Conv_2" else "bn_hswish"  # feature_mix_layer has no batch norm
        return blocks.conv(channels, output[2], 3 if kind == "Conv" else 1, stride, form), height, width
    if found := re.fullmatch(f"Logits-input:1x1x{N}-output:{N}", key):
        return blocks.linear(int(found[1]), int(found[2]), pooled=False), 1, 1
    pattern = (
        f"expanded_conv-input:{SHAPE}-output:{SHAPE}-expand:{N}-kernel:{N}-stride:{N}-idskip:([01])-se:([01])-hs:([01])"
    )
    if found := re.fullmatch(pattern, key):
        height, width, channels, _, _, out, middle, kernel, stride, adds, gated, hswish = map(int, found.groups())
        _check_mbconv(found, stride, adds)
        activation: Activation = "hswish" if hswish else "relu"
        block = blocks.mbconv(channels, out, kernel, stride, middle, activation, bool(adds), bool(gated))
        return block, height, width
    if key.startswith("expanded_conv-"):
        raise ValueError("a key without se and hs is of ProxylessNAS, not of once-for-all's MobileNetV3")
    raise ValueError("not a known layer of once-for-all")


def _check_mbconv(found: re.Match[str], stride: int, adds: int) -> None:
    height, width, channels, out_height, out_width, out = map(int, found.groups()[:6])
    _stride((height, width), [out_height, out_width], (stride,))
    if adds and (stride != 1 or channels != out):
        raise ValueError("it adds its input to an output of another size")


def _stride(size: tuple[int, int], output: Iterable[int], known: Iterable[int]) -> int:
    """Return the stride, one of ``known``, that gives the output size. Raises ValueError when none does."""
    for stride in known:
        if stride and [blocks.after_stride(side, stride) for side in size] == list(output):
            return stride
    raise ValueError("the output size does not match the input size")


def _mapping(text: str, name: str) -> dict[str, Any]:
    """Parse a mapping of mappings of scalars, from JSON or YAML. YAML scalars stay text.

    Raises HwnasError for anything else. YAML anchors, aliases, tags and deeper nesting are refused while parsing,
    because a small file can fill the memory with them.
    """
    if text.lstrip().startswith("{"):
        content = parse_json(text.encode(), name, CHOOSE_FORMAT)
        assert isinstance(content, dict)
        return content
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    result: dict[str, Any] = {}
    open_mappings: list[dict[str, Any]] = []
    keys: list[str | None] = []

    def store(value: Any) -> None:
        if keys[-1] is None:
            raise HwnasError(f"{name} has a key that is not text", CHOOSE_FORMAT)
        open_mappings[-1][keys[-1]] = value
        keys[-1] = None

    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise HwnasError(f"{name} holds a YAML anchor, alias or tag", "write it out as plain keys and numbers")
            if isinstance(event, yaml.MappingStartEvent):
                inner: dict[str, Any] = {} if open_mappings else result
                if open_mappings:
                    store(inner)
                if len(open_mappings) == 2:
                    raise HwnasError(f"{name} is nested deeper than key: {{mean, var, count}}", CHOOSE_FORMAT)
                open_mappings.append(inner)
                keys.append(None)
            elif isinstance(event, yaml.MappingEndEvent):
                open_mappings.pop()
                keys.pop()
            elif isinstance(event, yaml.ScalarEvent) and open_mappings:
                if keys[-1] is not None:
                    store(event.value)
                elif event.value in open_mappings[-1]:
                    raise HwnasError(f"{name} has the key {event.value[:100]!r} twice", CHOOSE_FORMAT)
                else:
                    keys[-1] = event.value
            elif isinstance(event, yaml.SequenceStartEvent | yaml.ScalarEvent):
                raise HwnasError(f"{name} is not a YAML file of keys and {{mean, var, count}}", CHOOSE_FORMAT)
    except yaml.YAMLError as error:
        raise HwnasError(f"{name} is not valid YAML ({str(error)[:200]})", CHOOSE_FORMAT) from None
    return result
