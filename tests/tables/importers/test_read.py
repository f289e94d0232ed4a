"""Files that no importer reads."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.tables.importers import Stated, import_table
from hwnas.tables.importers.fbnet import fbnet_operation, hw_nas_bench_key
from hwnas.tables.importers.layers import ofa_key, proxyless_key
from support.command import Run, assert_one_clear_line
from support.published_tables import HW_NAS_BENCH, NNI, PROXYLESS, SAID
from support.table_samples import FEW


def test_unknown_layers_are_refused_with_the_reason() -> None:
    conv = "expanded_conv-input:56x56x24-output:{}x{}x32-expand:3-kernel:5-stride:2-idskip:{}"
    wrong: list[tuple[Callable[[str], Any], str, str]] = [
        (proxyless_key, "Features_1-input:7x7x1280", "not a known layer"),
        (proxyless_key, conv.format(27, 28, 0), "the output size does not match"),
        (proxyless_key, conv.format(28, 28, 1), "another size"),
        (proxyless_key, conv.format(28, 28, 0) + "-se:1-hs:1", "once-for-all"),
        (ofa_key, conv.format(28, 28, 0), "ProxylessNAS"),
        (ofa_key, "AvgPool2D-input:6x6x8-output:3x3x8", "not an average"),
        (ofa_key, "Conv_3-input:1x1x8-output:1x1x8", "not a known layer"),
        (hw_nas_bench_key, "ConvBlock_H56_W56_Cin25_Cout32_exp3_kernel5_stride2_group2", "do not divide"),
        (hw_nas_bench_key, "ConvBlock_H56_W56_Cin24_Cout32_exp3_kernel5_stride2_group0", "0 groups"),
        (hw_nas_bench_key, "AvgP_H7_W7_Cin8_Cout8_kernel3_stride1", "not an average"),
    ]
    for read, key, words in wrong:
        with pytest.raises(ValueError, match=words):
            read(key)
    for changes, words in (
        ({"op_data_shape": (1, 2, 3)}, "not \\(width"),
        ({"op_data_shape": "1x1x1x1"}, "not \\(width"),
        ({"op_name": "warp"}, "not known"),
        ({"op_name": "gh_k3", "op_data_shape": (8, 8, 4, 5, 1)}, "odd"),
        ({"op_data_shape": (8, 8, 4, 8, 1)}, "another size"),
    ):
        with pytest.raises(ValueError, match=words):
            fbnet_operation({**NNI[0], **changes})  # type: ignore[dict-item]


BOMB = "a: &a {mean: 1}\nb: &b {mean: 1, x: *a}\nc: *b\n"


BAD_FILES: dict[str, tuple[str, bytes | None, tuple[str, ...], str]] = {
    "missing": ("lut.yaml", None, (), "does not exist"),
    "pickle": ("lut.bin", pickle.dumps(HW_NAS_BENCH), (), "pickle"),
    "pickle by name": ("lut.pickle", b"(dp0\n.", (), "pickle"),
    "numpy": ("lut.dat", b"\x93NUMPY\x01\x00", (), "pickle"),
    "binary": ("lut.txt", b"\xff\xfe\x00", (), "not a text file"),
    "empty": ("lut.txt", b"", (), "format of .* cannot be detected"),
    "empty fbnet": ("lut.txt", b"", ("--format", "fbnet"), "nothing in"),
    "prose": ("lut.txt", b"Dear reader", (), "format of .* cannot be detected"),
    "two formats": (
        "lut.txt",
        json.dumps({"op_data_shape": 1, "ConvNorm_H2_W2_Cin3_Cout4_kernel1_stride1_group1": 1}).encode(),
        (),
        "format of .* cannot be detected",
    ),
    "unknown format": ("lut.yaml", PROXYLESS.encode(), ("--format", "tvm"), "'tvm'"),
    "unknown unit": ("lut.yaml", PROXYLESS.encode(), ("--unit", "fortnights"), "fortnights"),
    "another format": ("lut.yaml", PROXYLESS.encode(), ("--format", "ofa"), "is of the format proxyless, not ofa"),
    "nothing known": ("lut.yaml", b"a: {mean: 1}", ("--format", "ofa"), "nothing in .*: a: not a known layer"),
    "aliases": ("lut.yaml", BOMB.encode(), ("--format", "proxyless"), "anchor"),
    "tags": ("lut.yaml", b"a: !!python/object:os.system {mean: 1}", ("--format", "proxyless"), "tag"),
    "deep": ("lut.yaml", b"a: {b: {c: {d: 1}}}", ("--format", "proxyless"), "deeper"),
    "very deep": ("lut.yaml", b"{a: " * 50_000, ("--format", "proxyless"), "not valid JSON|deeper"),
    "twice": ("lut.yaml", b"a: {mean: 1}\na: {mean: 2}", ("--format", "proxyless"), "twice"),
    "a list": ("lut.yaml", b"- 1\n- 2", ("--format", "proxyless"), "not a YAML file of keys"),
    "half": ("lut.yaml", b"a: {mean: 1", ("--format", "proxyless"), "not valid YAML"),
    "a key that is a map": ("lut.yaml", b"? {a: 1}\n: 2", ("--format", "proxyless"), "key that is not text"),
    "by layer number": ("lut.txt", b"ir_k3_e1 skip\n1.5 2.5\n3 4\n", ("--format", "fbnet"), "by layer number"),
    "a list of lists": ("lut.json", b"[null, [1, 2]]", ("--format", "fbnet"), "by layer number"),
    "a nested literal": ("lut.txt", b"[" * 9_000, ("--format", "fbnet"), "not valid JSON"),
    "a nested line": ("lut.txt", b"{'a': " * 1_500, ("--format", "fbnet"), "not an object"),
    "csv without columns": ("t.csv", b"op,latency_ms\nrelu,1\n", (), "lacks the columns in_channels"),
    "csv without rows": (
        "t.csv",
        b"op,in_channels,out_channels,height,width,stride,latency_ms,macs,macs_conv_linear,params\n",
        (),
        "nothing in",
    ),
    "csv with a huge field": (
        "t.csv",
        b"op,in_channels,out_channels,height,width,stride,latency_ms,macs,macs_conv_linear,params\n" + b"x" * 200_000,
        (),
        "not valid CSV",
    ),
    "a long name": ("lut.yaml", PROXYLESS.encode(), ("--device-name", "x" * 300), "device_name|name"),
    "csv in other columns": ("t.csv", b"op,in_channels,latency\nrelu,1,1\n", (), "unit of its column 'latency'"),
    "another kind": ("lut.yaml", PROXYLESS.encode(), ("--device-kind", "fridge"), "kind"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line_and_leave_nothing(run: Run, tmp_path: Path, case: str) -> None:
    name, data, options, words = BAD_FILES[case]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    before = sorted(tmp_path.iterdir())
    unit = () if "--unit" in options or name == "t.csv" else ("--unit", "ms")
    result = run("table", "import", tmp_path / name, *SAID, *unit, *options, "--out", tmp_path / "out.json")
    assert_one_clear_line(result, words)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@FEW
@given(st.text(max_size=200), st.sampled_from(["proxyless", "ofa", "hw-nas-bench", "fbnet", "csv"]))
def test_readers_raise_only_hwnas_errors_for_any_text(tmp_path: Path, text: str, format_name: str) -> None:
    (tmp_path / "any.txt").write_text(text, encoding="utf-8")
    with pytest.raises(HwnasError):
        import_table(tmp_path / "any.txt", format_name, Stated("a", runtime="b", threads=1, batch=1, unit="ms"))
