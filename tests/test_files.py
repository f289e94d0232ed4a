"""Text in the encodings that editors, spreadsheets and shells write."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.files import decode_text, read_json, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_utf8_and_with_every_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.json").write_text('{"name": "µs, 日本"}', encoding=encoding)
    assert read_text(tmp_path / "t.json", "") == '{"name": "µs, 日本"}'
    assert read_json(tmp_path / "t.json", "") == {"name": "µs, 日本"}


@pytest.mark.parametrize("order", ["le", "be"])
def test_both_byte_orders_are_read(order: str) -> None:
    mark = {"le": b"\xff\xfe", "be": b"\xfe\xff"}[order]
    assert decode_text(mark + "a,b".encode(f"utf-16-{order}"), "t", "") == "a,b"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            "a\nlatency(µs)".encode("cp1252"),
            "t is not a text file in UTF-8: line 2 holds the byte 0xb5; save it as UTF-8",
        ),
        ("a,b".encode("utf-16-le"), "UTF-16 without a byte-order mark; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "t is not a text file; name another"),
        (b"\xff\xfe\x00", "t is not a text file; name another"),
    ],
)
def test_other_bytes_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        decode_text(data, "t", "name another")
