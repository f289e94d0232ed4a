"""Values written in Python or JSON are parsed and never evaluated."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.literals import Call, closing_bracket, open_brackets, parse_literal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_and_python_give_the_same_value(value: object) -> None:
    assert parse_literal(json.dumps(value)) == value
    assert parse_literal(repr(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("range(2, 6)", [2, 3, 4, 5]),
        ("list(range(2, 6))", [2, 3, 4, 5]),
        ("np.arange(2, 6)", [2, 3, 4, 5]),
        ("array([2, 3, 4, 5], dtype=int32)", [2, 3, 4, 5]),
        ("np.array([2, 3])", [2, 3]),
        ("(np.str_('a'), np.int64(3))", ["a", 3]),
        ("tensor(4, device='cuda:0')", 4),
        ("OrderedDict([('a', 1)])", {"a": 1}),
        ("dict(a=[1])", {"a": [1]}),
        ("a.b.Genotype(1, x=None)", Call("Genotype", (1,), {"x": None})),
        ("{(1, 2): 3}", {(1, 2): 3}),
    ],
)
def test_calls_stand_for_their_values(text: str, value: object) -> None:
    assert parse_literal(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2", "[1 2]", "x", "1 + 1", "[i for i in (1,)]", "f(**{})", "{f(): 1}", "{{}: 1}", "(" * 5000,
     "-" * 50_000,
     "{'a': 1, 'a': 2}", "range('a')", "range(1, 2, 0)", "lambda: 1", "b'x'", "'\\d", "dict([1])", "x" * 300_000],
)  # fmt: skip
def test_other_texts_are_refused_without_pythons_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(it |a key of it|a bracket, comma or quote)") as raised:
        parse_literal(text)
    assert not any(word in str(raised.value) for word in ("malformed", "node", "indices", "syntax", "object at", "ast"))


@given(st.text("ab([{}])'\",=\n", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(ValueError):
        parse_literal(text)
    for start, character in enumerate(text):
        if character in "([{" and (end := closing_bracket(text, start)) is not None:
            assert text[end] in ")]}"
            assert open_brackets(text[start : end + 1]) == 0
