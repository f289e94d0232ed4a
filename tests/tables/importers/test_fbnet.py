"""Import the tables of HW-NAS-Bench and NNI (FBNet)."""

from __future__ import annotations

import json
import pprint
from dataclasses import asdict
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.spaces import Workload
from hwnas.tables.importers import Stated, import_table
from hwnas.tables.io import read_table
from support.command import Run, assert_one_clear_line
from support.published_tables import HW_NAS_BENCH, NNI, SAID


def test_hw_nas_bench_tables_are_read(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pixel3.json"
    file.write_text(json.dumps(HW_NAS_BENCH | {"Warp_H1": 1.0, "FC_Cin1_Cout1": "many"}))
    assert_one_clear_line(run("table", "import", file, *SAID, "--out", tmp_path / "t.json"), "give --unit$")
    result = run("table", "import", file, *SAID, "--unit", "us", "--out", tmp_path / "t.json")
    assert result.exit_code == 0
    assert "left out: Warp_H1: not a known operation" in result.stdout
    assert "left out: FC_Cin1_Cout1: 'many' is not a latency" in result.stdout
    assert "left out: 2 lines" in result.stdout
    assert {(e.op, round(e.latency_ms * 1e3, 9)) for e in read_table(tmp_path / "t.json").entries} == {
        ("conv_bn_relu_3x3", 1.0),
        ("ir_5x5_e3", 2.0),
        ("ir_3x3_e1_g2_res", 3.0),
        ("identity", 0.0),
        ("conv_bn_relu_1x1", 0.5),
        ("global_avg_pool", 0.25),
        ("linear", 0.125),
    }
    strict = run("table", "import", file, *SAID, "--unit", "us", "--strict", "--out", tmp_path / "s.json")
    assert_one_clear_line(strict, "2 lines and 0 fields are not understood", "Warp_H1")
    assert not (tmp_path / "s.json").exists()
    file.write_text(json.dumps({"pixel3_latency": HW_NAS_BENCH, "fpga_energy": HW_NAS_BENCH}))
    assert_one_clear_line(
        run("table", "import", file, *SAID, "--unit", "ms", "--out", tmp_path / "s.json"), "pixel3_latency, fpga_energy"
    )


NNI_FORMS: dict[str, str] = {
    "python": "\n".join(map(repr, NNI)),
    "json lines": "\n".join(map(json.dumps, NNI)),
    "json": json.dumps(NNI),
    "json by lines": json.dumps(NNI, indent=2),
    "python by lines": "\n".join(repr(record).replace(", '", ",\n '") for record in NNI),
    "json objects by lines": "\n".join(json.dumps(record, indent=2) for record in NNI),
    "python list": pprint.pformat(NNI),
    "in a variable": f"lut = {NNI}",
    "within an object": json.dumps({"device": "board", "records": NNI}, indent=1),
    "lists": json.dumps({key: [record[key] for record in NNI] for key in NNI[0]}),
    "pandas": json.dumps({key: {str(n): record[key] for n, record in enumerate(NNI)} for key in NNI[0]}),
    "csv": "op_name,op_data_shape,op_dtype,op_latency\n"
    + "\n".join(f'{r["op_name"]},"{r["op_data_shape"]}",float,{r["op_latency"]}' for r in NNI),
    "columns": "op_name op_data_shape op_dtype op_latency\n"
    + "\n".join(f"{r['op_name']} {'x'.join(map(str, r['op_data_shape']))} float {r['op_latency']}" for r in NNI),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("form", NNI_FORMS)
def test_nni_tables_are_read(tmp_path: Path, form: str) -> None:
    file = tmp_path / "lut.txt"
    file.write_text(NNI_FORMS[form])
    imported = import_table(file, None, Stated("board", runtime="torch", threads=1, batch=1, unit="us"))
    assert imported.format == "fbnet"
    assert imported.table.runtime.precision == "float32"
    assert [(e.workload, e.latency_ms) for e in imported.table.entries] == [
        (Workload("ir_3x3_e2_res", 32, 32, 28, 14), 0.12),
        (Workload("separable_bn_relu_5x5", 32, 64, 14, 14, 2), 0.06),
    ]
    ((line, why),) = [(line, why) for line, why in imported.refused.items() if why != "it is not an object"]
    assert "3" in line or "4" in line
    assert "'mb_k5_res_se' is made of is not known" in why


def test_several_data_types_need_a_choice(tmp_path: Path) -> None:
    file = tmp_path / "lut.txt"
    file.write_text("\n".join(map(repr, [*NNI[:2], {**NNI[0], "op_dtype": "int8", "op_latency": 30.0}])))
    stated = asdict(Stated("board", runtime="torch", threads=1, batch=1, unit="us"))
    with pytest.raises(HwnasError, match="several data types: float32, int8; choose one with --precision"):
        import_table(file, None, Stated(**stated))
    imported = import_table(file, None, Stated(**{**stated, "precision": "int8"}))
    assert [e.latency_ms for e in imported.table.entries] == [0.03]
    assert imported.table.runtime.precision == "int8"
    assert len(imported.refused) == 2
