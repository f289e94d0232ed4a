"""A search in a chain of layers, from a table to verified networks; imported tables of other projects drive one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.torch import save_file

from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import SearchSpace, SizedSpace, Workload, get_space
from hwnas.spaces.mobile_blocks import InvertedResidual, read_mobile_layer
from hwnas.tables.importers import import_table
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable
from support.chains import SHARING, SMALL, WIDTHS
from support.command import Run, profile, timed
from support.few_digits import FEW_DIGITS
from support.noise import assert_timing
from support.published_tables import STATED
from support.tables import make_table

FEW = ("--data", FEW_DIGITS, "--epochs", 2, "--child-epochs", 1, "--batch-size", 32)


@pytest.mark.end_to_end
@pytest.mark.parametrize("method", ["snas, shared", "advantagenas", "single-path", "bignas"])
def test_a_chain_is_searched_like_any_space(method: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SHARING)
    (tmp_path / "snas, shared.yaml").write_text("base: chain/snas\nshared_blocks: transformed\n")
    space = get_space(str(tmp_path / "small.yaml"))
    table = make_table(SizedSpace.named(space))
    write_table(tmp_path / "table.json", table)
    command = ("search", "--space", tmp_path / "small.yaml", "--table", tmp_path / "table.json", *FEW)
    chosen_by = ("--recipe", tmp_path / f"{method}.yaml") if "shared" in method else ("--method", method)
    result = run(*command, *chosen_by, "--budget", "moderate", "--budget", "40%", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["targets"]
    model = build_cost_models(table, SizedSpace.named(space))["latency_ms"]
    for row in rows:
        chosen = space.parse(row["architecture"])  # refuses what the space does not offer
        assert row["predicted_ms"] == pytest.approx(model.predict(chosen))
        assert row["predicted_ms"] <= row["budget_ms"]
        assert row["parity"]["same_class"] == 1
    assert (tmp_path / "run" / "moderate" / "network.onnx").exists()
    assert run("report", tmp_path / "run", "--out", tmp_path / "page.html").exit_code == 0
    if method in ("single-path", "bignas"):
        return  # it has no probabilities to derive from
    derived = json.loads(run("derive", tmp_path / "run", "--top", "2", "--json").stdout)["targets"]
    assert len(derived[0]["architectures"]) == 2


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.usefixtures("short_timings")
def test_a_mobile_chain_goes_from_its_profile_to_verified_networks(run: Run, tmp_path: Path) -> None:
    """Squeeze-and-excitation, h-swish, residual blocks, strides and skipped layers, as in mobilenetv3."""
    (tmp_path / "small.yaml").write_text(SMALL)
    sized = SizedSpace.named(get_space(str(tmp_path / "small.yaml")))
    few = ("--rounds", 3, "--fit-networks", 4, "--report-networks", 4)
    table = profile(run, "--space", tmp_path / "small.yaml", *few, "--out", tmp_path / "table.json")
    assert {entry.workload for entry in table.entries} == set(sized.network.workloads())
    assert table.quality.additivity[sized.key].networks == 4
    command = ("search", "--space", tmp_path / "small.yaml", "--table", tmp_path / "table.json", *FEW)
    result = run(*command, "--budget", "mild", "--budget", "50%", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    verified = timed(run, "verify", tmp_path / "run", "--json")
    assert verified.exit_code in (0, 1), verified.output  # 1: a noisy machine kept no budget
    rows = json.loads(verified.stdout)["targets"]
    assert [row["budget"] for row in rows] == ["mild", "50%"]
    model = build_cost_models(table, sized)["latency_ms"]
    for row, name in zip(rows, ("mild", "50pct"), strict=True):
        file = tmp_path / "run" / name / "network.onnx"
        saved = json.loads((file.parent / "architecture.json").read_text())
        assert row["measured_ms"] > 0
        assert row["predicted_ms"] == pytest.approx(model.predict(sized.space.parse(saved["architecture"])))
        # One image and several, in the runtime of the user's choice.
        (scores,) = onnxruntime.InferenceSession(file).run(None, {"image": np.zeros((3, 3, 16, 16), np.float32)})
        assert scores.shape == (3, 10)
        assert np.isfinite(scores).all()
    assert_timing(all(entry.latency_ms > 0 for entry in table.entries if entry.op.startswith("mbconv")), table)


@pytest.mark.slow
def test_methods_that_cut_edges_or_channels_are_refused(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "table.json", make_table(SizedSpace.named(get_space("mobilenetv3"))))
    command = ("search", "--space", "mobilenetv3", "--table", tmp_path / "table.json", *FEW, "--out", tmp_path / "r")
    refused = run(*command, "--method", "pc-darts")
    assert refused.exit_code == 2
    assert "method pc-darts has no recipe for space chain" in refused.output


def proxyless_key(w: Workload) -> str:
    """Return the key of ProxylessNAS's tables for a workload."""
    layer, size, out = read_mobile_layer(w.op), f"{w.height}x{w.width}x{w.in_channels}", after(w)
    if w.op == "pool_linear":
        return f"Logits-input:{size}-output:{w.out_channels}"
    if isinstance(layer, InvertedResidual):
        facts = f"expand:{layer.expansion}-kernel:{layer.kernel}-stride:{w.stride}-idskip:{int(layer.residual)}"
        return f"expanded_conv-input:{size}-output:{out}-{facts}"
    return f"{'Conv' if '3x3' in w.op else 'Conv_1'}-input:{size}-output:{out}"


def ofa_key(w: Workload) -> str:
    """Return the key of once-for-all's tables for a workload."""
    layer, size, out = read_mobile_layer(w.op), f"{w.height}x{w.width}x{w.in_channels}", after(w)
    if w.op == "linear":
        return f"Logits-input:{size}-output:{w.out_channels}"
    if w.op == "global_avg_pool":
        return f"AvgPool2D-input:{size}-output:1x1x{w.out_channels}"
    if isinstance(layer, InvertedResidual):
        facts = f"kernel:{layer.kernel}-stride:{w.stride}-idskip:{int(layer.residual)}"
        kind = f"se:{int(layer.gate == 'se')}-hs:{int(layer.activation == 'hswish')}"
        return f"expanded_conv-input:{size}-output:{out}-expand:{layer.middle_channels(w.in_channels)}-{facts}-{kind}"
    kind = {"conv_bn_hswish_3x3": "Conv", "conv_bn_hswish_1x1": "Conv_1", "conv_hswish_1x1": "Conv_2"}[w.op]
    return f"{kind}-input:{size}-output:{out}"


def hw_nas_bench_key(w: Workload) -> str:
    """Return the key of HW-NAS-Bench's tables of FBNet for a workload."""
    layer, sizes = read_mobile_layer(w.op), f"H{w.height}_W{w.width}_Cin{w.in_channels}_Cout{w.out_channels}"
    if w.op == "linear":
        return f"FC_Cin{w.in_channels}_Cout{w.out_channels}"
    if w.op == "global_avg_pool":
        return f"AvgP_{sizes}_kernel{w.height}_stride1"
    if isinstance(layer, InvertedResidual):
        facts = f"exp{layer.expansion}_kernel{layer.kernel}_stride{w.stride}_group{layer.groups}"
        return f"ConvBlock_{sizes}_{facts}"
    assert layer
    searched = w.op == "conv_bn_relu_1x1" and w.out_channels != 1984
    return (
        f"Skip_{sizes}_stride{w.stride}"
        if searched
        else f"ConvNorm_{sizes}_kernel{layer.kernel}_stride{w.stride}_group1"
    )


def after(w: Workload) -> str:
    return f"{-(-w.height // w.stride)}x{-(-w.width // w.stride)}x{w.out_channels}"


def imported(space: SearchSpace, key: Callable[[Workload], str], file: Path, without: str = "") -> LatencyTable:
    """Return the table of a space's layers, written in another project's format and imported."""
    workloads = SizedSpace.named(space, "imagenet").network.workloads()
    lines = {key(w): 0.1 + w.out_channels / 1e3 for w in workloads if w.key != without}
    plain = file.name.startswith("hw")
    file.write_text(json.dumps(lines if plain else {k: {"mean": ms} for k, ms in lines.items()}))
    found = import_table(file, None, replace(STATED, unit="ms" if plain else None))
    assert (found.refused, len(found.table.entries)) == ({}, len(lines))
    return found.table


@pytest.mark.parametrize(
    ("name", "key", "file"),
    [
        ("proxylessnas", proxyless_key, "proxyless.json"),
        ("mobilenetv3", ofa_key, "ofa.json"),
        ("fbnet", hw_nas_bench_key, "hw.json"),
    ],
)
def test_imported_tables_hold_the_layers_of_a_space(
    name: str, key: Callable[[Workload], str], file: str, tmp_path: Path
) -> None:
    space = get_space(name)
    sized = SizedSpace.named(space, "imagenet")
    table = imported(space, key, tmp_path / file)
    assert build_cost_models(table, sized).keys() == {"latency_ms", "macs", "params"}
    missing = sized.network.workloads()[3].key
    with pytest.raises(HwnasError, match=f"lacks 1 of .* workloads of space {name}.*{missing}"):
        build_cost_models(imported(space, key, tmp_path / file, missing), sized)
    with pytest.raises(HwnasError, match="lacks"):
        build_cost_models(table, SizedSpace.named(space, "imagenet", width=192))


@pytest.mark.end_to_end
def test_an_imported_table_drives_a_search(run: Run, tmp_path: Path) -> None:
    space = get_space("proxylessnas")
    table = imported(space, proxyless_key, tmp_path / "proxyless.json")
    write_table(tmp_path / "table.json", table)
    sizes = ("--space", "proxylessnas", "--setting", "imagenet", "--search-channels", 8)
    command = ("search", "--table", tmp_path / "table.json", *sizes, *FEW[:2], "--epochs", 1, "--child-epochs", 0)
    result = run(*command, "--budget", "moderate", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "run" / "summary.json").read_text())["targets"]
    model = build_cost_models(table, SizedSpace.named(space, "imagenet"))["latency_ms"]
    assert row["predicted_ms"] == pytest.approx(model.predict(space.parse(row["architecture"])))
    assert row["predicted_ms"] <= row["budget_ms"]


@pytest.mark.end_to_end
def test_widths_are_searched_from_pretrained_weights(run: Run, tmp_path: Path) -> None:
    (tmp_path / "widths.yaml").write_text(WIDTHS)
    sized = SizedSpace.named(get_space(str(tmp_path / "widths.yaml")))
    table = make_table(sized)
    write_table(tmp_path / "table.json", table)
    child = ChildNetwork(sized, sized.space.parse("w12 k5_e3 k3_e2 k5_e3 w24 k5_e3 k3_e2"), prune=True)
    save_file(child.state_dict(), tmp_path / "weights.safetensors")
    command = ("search", "--space", tmp_path / "widths.yaml", "--table", tmp_path / "table.json", *FEW)
    weights = ("--weights", tmp_path / "weights.safetensors")
    result = run(*command, *weights, "--budget", "moderate", "--budget", "50%-macs", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "weights.safetensors fits" in result.output
    fit = json.loads((tmp_path / "run" / "pretrained.json").read_text())
    assert fit["fits"]["parts.1.edges.7.head.w24.0"] == "parts.1.edges.7.0"
    model = build_cost_models(table, sized)["latency_ms"]
    for row in json.loads((tmp_path / "run" / "summary.json").read_text())["targets"]:
        assert row["predicted_ms"] == pytest.approx(model.predict(sized.space.parse(row["architecture"])))
        assert row["parity"]["same_class"] == 1
    assert run("report", tmp_path / "run", "--out", tmp_path / "page.html").exit_code == 0
    assert "Operations such as w24 choose the width" in (tmp_path / "page.html").read_text()
    derived = json.loads(run("derive", tmp_path / "run", "--top", "2", "--json").stdout)["targets"]
    assert len(derived[0]["architectures"]) == 2
    refused = run(*command, "--method", "darts", "--budget", "moderate", "--out", tmp_path / "other")
    assert refused.exit_code == 2
    assert "the widths of a stage cannot be mixed" in refused.output
