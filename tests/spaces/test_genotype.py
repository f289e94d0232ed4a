"""DARTS genotypes as programs print them and people paste them, against the published flat form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import SizedSpace
from support.command import Run, assert_one_clear_line
from support.spaces import DARTS

V2 = DARTS.published["DARTS_V2"]
SNAS = DARTS.published["SNAS_MODERATE"]
NORMAL = [("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
          ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)]  # fmt: skip
REDUCE = [("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
          ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)]  # fmt: skip
FLAT = {"normal": NORMAL, "normal_concat": [2, 3, 4, 5], "reduce": REDUCE, "reduce_concat": [2, 3, 4, 5]}
NNI_OLD = {
    "sep_conv_3x3": "sepconv3x3",
    "skip_connect": "skipconnect",
    "dil_conv_3x3": "dilconv3x3",
    "max_pool_3x3": "maxpool",
}


def grouped(pairs: list[Any], kind: type = list) -> Any:
    return kind(kind(pairs[i : i + 2]) for i in range(0, 8, 2))


def call(normal: object, reduce: object, concat: str = "range(2, 6)", more: str = "") -> str:
    return f"Genotype(normal={normal!r}, normal_concat={concat}, reduce={reduce!r}, reduce_concat={concat}{more})"


def nni(index: Any = lambda number: number) -> dict[str, Any]:
    """The export of NNI from version 2."""
    content: dict[str, Any] = {"width": 36, "num_cells": 20}
    for kind, pairs in (("normal", NORMAL), ("reduce", REDUCE)):
        for i, (op, source) in enumerate(pairs):
            content[f"{kind}/op_{2 + i // 2}_{i % 2}"] = op
            content[f"{kind}/input_{2 + i // 2}_{i % 2}"] = index(source)
    return content


def nni_1() -> dict[str, Any]:
    """The export of NNI 1: an operation for every input of a node, and which two it takes."""
    content: dict[str, Any] = {}
    for kind, pairs in (("normal", NORMAL), ("reduce", REDUCE)):
        for node in range(2, 6):
            taken = {source: op for op, source in pairs[2 * node - 4 : 2 * node - 2]}
            for source in range(node):
                content[f"{kind}_n{node}_p{source}"] = NNI_OLD[taken[source]] if source in taken else []
            content[f"{kind}_n{node}_switch"] = [f"{kind}_n{node}_p{source}" for source in sorted(taken)]
    return content


NUMPY = call(NORMAL, REDUCE).replace(", 0)", ", np.int64(0))").replace("('sep_conv_3x3'", "(np.str_('sep_conv_3x3')")
FORMS = {
    "flat": V2,
    "lists of lists": call(grouped(NORMAL), grouped(REDUCE)),
    "tuples of tuples": call(grouped(NORMAL, tuple), grouped(REDUCE, tuple)),
    "pairs in lists": call([list(pair) for pair in NORMAL], [list(pair) for pair in REDUCE]),
    "weights": call([[(*pair, 0.13) for pair in node] for node in grouped(NORMAL)], grouped(REDUCE)),
    "the other way round": call([pair[::-1] for pair in NORMAL], REDUCE),
    "None fields": call(NORMAL, REDUCE, more=", connectN=None, connects=None"),
    "empty fields": call(NORMAL, REDUCE, more=", normal_bottleneck='', reduce_bottleneck=''"),
    "without names": f"Genotype({NORMAL}, range(2, 6), {REDUCE}, range(2, 6))",
    "no concat": f"Genotype(normal={NORMAL}, reduce={REDUCE})",
    "concat None": call(NORMAL, REDUCE, "None"),
    "numpy": NUMPY,
    "numpy concat": call(NORMAL, REDUCE, "array([2, 3, 4, 5])"),
    "list of range": call(NORMAL, REDUCE, "list(range(2, 6))"),
    "module": "genotypes." + V2,
    "quoted": f'"{V2}"',
    "assigned": f"DARTS = {V2}",
    "log line": f"2019-07-04 10:11:12,123 - train INFO | genotype = {V2}, valid_acc 97.2 (best)",
    "log of pt.darts": f"07/04 10:11:12 AM | Best Genotype = {call(grouped(NORMAL), grouped(REDUCE))}",
    "twice the same": f"epoch 1 {V2}\nepoch 2 {V2}",
    "lines": V2.replace(", ", ",\n    ") + "\n",
    "comments": call(grouped(NORMAL, tuple), grouped(REDUCE, tuple)).replace("), (('", "),  # step\n  (('"),
    "typographic quotes": V2.replace("'", "’"),
    "no-break spaces": V2.replace(" ", "\xa0"),
    "escaped quotes": V2.replace("'", "\\'"),
    "json": json.dumps(FLAT),
    "json by lines": json.dumps(FLAT, indent=2),
    "json grouped": json.dumps({**FLAT, "normal": grouped(NORMAL), "reduce": grouped(REDUCE)}),
    "json within": json.dumps({"epoch": 49, "val_acc": 97.1, "genotype": FLAT}),
    "json of the text": json.dumps({"genotype": V2, "accuracy": 0.97}),
    "json in a log": "INFO best: " + json.dumps({**FLAT, "params": 3.3}) + " saved",
    "dictionary": repr(FLAT),
    "fields": "\n".join(f"{name} = {value}" for name, value in FLAT.items()),
    "fields in yaml": "\n".join(f"{name}: {json.dumps(value)}" for name, value in FLAT.items()),
    "fields of a log": f"normal={NORMAL}, normal_concat=range(2, 6), reduce={REDUCE}, reduce_concat=range(2, 6)",
    "nni": json.dumps(nni()),
    "nni by lines": json.dumps(nni(lambda number: [number]), indent=4),
    "nni in python": f"exported: {nni()}",
    "nni 1": json.dumps(nni_1(), indent=2),
    "name in small letters": "'darts_v2'",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_flat_one(form: str) -> None:
    assert DARTS.parse(FORMS[form]) == DARTS.parse(V2)
    assert DARTS.evaluation_setting(FORMS[form]) == "cifar"


def test_all_edges_grouped_by_node_are_the_flat_form() -> None:
    flat = DARTS.parse(SNAS)
    nodes = {
        kind: [
            [
                (op, source)
                for op, (source, target) in zip(chosen, DARTS.cells[kind].edges, strict=True)
                if target == node
            ]
            for node in DARTS.cells[kind].inner_nodes
        ]
        for kind, chosen in zip(DARTS.cells, flat.cells, strict=True)
    }
    text = call(nodes["normal"], nodes["reduce"])
    assert DARTS.parse(text) == flat
    assert DARTS.evaluation_setting(text) == "snas-cifar"


@pytest.mark.slow
def test_a_grouped_genotype_has_the_published_count() -> None:
    sized = SizedSpace(DARTS, DARTS.setting("cifar"))
    for form in ("lists of lists", "nni"):
        assert count_network(ChildNetwork(sized, DARTS.parse(FORMS[form]))).params == 3_349_342


REFUSED = {
    "cut off": (V2[:-40], "cut off, or its brackets do not match"),
    "a comma lacks": (V2.replace("), ('sep", ") ('sep", 1), "genotype"),
    "no reduce cell": (call(NORMAL, None), "without its reduce cell"),
    "neither cell": ("Genotype(recurrent=[('relu', 0)], concat=range(1, 9))", "recurrent is not one of a DARTS"),
    "a field more": (call(NORMAL, REDUCE, more=", connects=[1]"), "its field connects is not one"),
    "numbered operations": (call([(4, 0)] * 8, REDUCE), "numbers its operations: write their names"),
    "no pairs": (call("sep_conv_3x3", REDUCE), "normal cell is not a list of"),
    "text for pairs": (call(["sep_conv_3x3"] * 8, REDUCE), "normal cell is not a list of"),
    "four in a pair": (call([("sep_conv_3x3", 0, 1, 2)] * 8, REDUCE), r"\(sep_conv_3x3, 0, 1, 2\) in its normal cell"),
    "a name": (V2.replace("'sep_conv_3x3'", "sep_conv_3x3"), "'sep_conv_3x3', which is no name in quotes"),
    "concat a number": (call(NORMAL, REDUCE, "4"), "normal_concat is not a list of nodes"),
    "three nodes": (call(grouped(NORMAL)[:3], grouped(REDUCE)), "nodes with 2, 2, 2 inputs"),
    "a node of one": (call([*grouped(NORMAL)[:3], [NORMAL[0]]], grouped(REDUCE)), "nodes with 2, 2, 2, 1 inputs"),
    "one input twice": (call([[NORMAL[0]] * 2] * 4, grouped(REDUCE)), "cannot take input 0"),
    "two genotypes": (f"{V2} {DARTS.published['DARTS_V1']}", "it holds 2 genotypes: give one at a time"),
    "another operation": (V2.replace("dil_conv_3x3", "sep_conv_7x7"), "unknown operation 'sep_conv_7x7'"),
    "a program": ("Genotype(normal=__import__('os').getcwd(), reduce=[])", "not a DARTS genotype"),
    "five fields": (f"Genotype({NORMAL}, range(2, 6), {REDUCE}, range(2, 6), None)", "more fields than normal"),
    "prose": ("the cell that DARTS found", r"no Genotype\(…\) and no object with the keys normal and reduce"),
    "other json": ('{"layers": 20}', "no object with the keys"),
    "nni without an input": (
        json.dumps({key: value for key, value in nni().items() if key != "reduce/input_4_1"}), "lacks reduce/input_4_1"
    ),
    "nni 1 by number": (json.dumps({**nni_1(), "normal_n2_p0": 3}), "normal_n2_p0 numbers its operation"),
    "a key twice": ('{"normal": [], "normal": [], "reduce": []}', "a key twice"),
}  # fmt: skip
PYTHONS_WORDS = (
    "malformed",
    "indices",
    "invalid syntax",
    "node or string",
    "NoneType",
    "unpack",
    "literal",
    "<ast",
    "int()",
)


@pytest.mark.parametrize("case", REFUSED)
def test_other_texts_are_one_line_without_pythons_words(case: str) -> None:
    text, words = REFUSED[case]
    with pytest.raises(HwnasError, match=words) as raised:
        DARTS.parse(text)
    assert not any(word in str(raised.value) for word in PYTHONS_WORDS), raised.value
    assert "\n" not in str(raised.value)


def test_the_command_line_reads_them_too(run: Run) -> None:
    count = ("space", "count", "--space", "darts", "--channels", 4, "--layers", 3, "--json", "--architecture")
    printed = [json.loads(run(*count, FORMS[form]).stdout) for form in ("flat", "log of pt.darts", "nni by lines")]
    assert printed[0] == printed[1] == printed[2]
    assert_one_clear_line(run(*count, FORMS["json"][:-3]), "cut off", "write it like")
