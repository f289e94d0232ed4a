"""Import the tables of ProxylessNAS and Once-for-All."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwnas.tables.importers import Stated, import_table
from hwnas.tables.io import read_table
from support.command import Run
from support.published_tables import PROXYLESS, SAID, STATED


def test_proxyless_tables_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lut.yaml").write_text(PROXYLESS)
    result = run("table", "import", tmp_path / "lut.yaml", *SAID, "--out", tmp_path / "t.json", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["format"], printed["entries"], printed["refused"], printed["unknown"]) == ("proxyless", 6, {}, {})
    assert printed["unused"] == {"count": 2, "var": 2}
    table = read_table(tmp_path / "t.json")
    assert {(e.op, e.workload.key.split("-", 1)[1], e.latency_ms) for e in table.entries} == {
        ("conv_bn_relu6_3x3", "3-32-224x224-s2", 4.5),
        ("mbconv_5x5_e6_r6", "192-320-7x7-s1", 5.264772727272727),
        ("mbconv_5x5_e3_r6", "24-32-56x56-s2", 2.0),
        ("mbconv_7x7_e3_r6_res", "32-32-28x28-s1", 1.5),
        ("conv_bn_relu6_1x1", "320-1280-7x7-s1", 3.0),
        ("pool_linear", "1280-1000-7x7-s1", 1.0),
    }
    assert all((e.error_ms, e.samples, e.p10_ms) == (None, 0, e.latency_ms) for e in table.entries)
    assert table.provenance == "measured"
    assert table.source == "imported from lut.yaml (proxyless)"
    assert (table.runtime.name, table.runtime.version, table.runtime.precision) == ("tflite", "not known", "not known")
    assert (table.device.kind, table.device.cores, table.protocol.date) == ("unknown", 0, "not known")
    checked = run("table", "check", tmp_path / "t.json")
    assert checked.exit_code == 0
    assert "not timed again: an imported table" in checked.stdout
    seconds = import_table(tmp_path / "lut.yaml", None, Stated("Pixel 1", runtime="x", threads=1, batch=1, unit="s"))
    assert max(e.latency_ms for e in seconds.table.entries) == pytest.approx(5264.772727)
    # Another device, another fingerprint; the same said twice, the same.
    again = import_table(tmp_path / "lut.yaml", "proxyless", STATED).table
    assert again.device.fingerprint == table.device.fingerprint
    other = import_table(tmp_path / "lut.yaml", None, Stated("Pixel 2", runtime="tflite", threads=1, batch=1)).table
    assert other.device.fingerprint != table.device.fingerprint


def test_once_for_all_tables_are_read(tmp_path: Path) -> None:
    content = {
        "AvgPool2D-input:6x6x1152-output:1x1x1152": {"count": 481, "mean": 0.01, "std": 0.001},
        "Conv-input:164x164x3-output:82x82x24": {"mean": 0.5},
        "Conv_1-input:6x6x192-output:6x6x1152": {"mean": 0.6},
        "Conv_2-input:1x1x1152-output:1x1x1536": {"mean": 0.7},
        "Logits-input:1x1x1536-output:1000": {"mean": 0.8},
        "expanded_conv-input:11x11x136-output:6x6x192-expand:408-kernel:3-stride:2-idskip:0-se:1-hs:1": {"mean": 1.5},
        "expanded_conv-input:41x41x32-output:41x41x32-expand:96-kernel:5-stride:1-idskip:1-se:0-hs:0": {"mean": 0.9},
    }
    (tmp_path / "164_lookup_table.json").write_text(json.dumps(content))
    imported = import_table(tmp_path / "164_lookup_table.json", None, STATED)
    assert (imported.format, imported.refused, imported.unused) == ("ofa", {}, {"count": 1, "std": 1})
    assert {(e.op, e.latency_ms) for e in imported.table.entries} == {
        ("global_avg_pool", 0.01),
        ("conv_bn_hswish_3x3", 0.5),
        ("conv_bn_hswish_1x1", 0.6),
        ("conv_hswish_1x1", 0.7),
        ("linear", 0.8),
        ("mbconv_3x3_e3_se_hs", 1.5),
        ("mbconv_5x5_e3_res", 0.9),
    }
