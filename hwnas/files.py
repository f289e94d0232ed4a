"""Write files atomically, read text and JSON with clear errors, hash content, find the files in the wheel."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError

MAX_BYTES = 64 << 20
# UTF-32 is first: its mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of ``path`` that replaces ``path`` when the block ends without an error.

    Raises HwnasError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise unwritable(path.parent, error) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(folder: Path, error: OSError) -> HwnasError:
    """Return the error for a folder that cannot be written."""
    return HwnasError(f"cannot write to folder {folder}: {error.strerror}", "give another one with --out")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises HwnasError when the folder cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises HwnasError when the folder cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys atomically. Raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_bytes(path: Path, fix: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file. Raises HwnasError, with ``fix`` as the advice, when it is missing, unreadable or larger."""
    try:
        if path.stat().st_size > max_bytes:
            raise HwnasError(f"{path} is larger than {_size(max_bytes)}", fix)
        return path.read_bytes()
    except FileNotFoundError:
        raise HwnasError(f"{path} does not exist", fix) from None
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}", fix) from error


def _size(number: int) -> str:
    return f"{number >> 20} MiB" if number >= 1 << 20 else f"{number >> 10} KiB"


def read_text(path: Path, fix: str, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file as ``decode_text`` does. Raises HwnasError as ``read_bytes`` and ``decode_text`` do."""
    return decode_text(read_bytes(path, fix, max_bytes), str(path), fix)


def decode_text(data: bytes, name: str, fix: str) -> str:
    """Decode text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark; a mark is left out.

    ``name`` names the text in errors. Raises HwnasError, with ``fix`` as the advice, for other bytes and where a
    quarter of the text is NUL, as in UTF-16 without a mark.
    """
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig" or b"\0" in data:
            raise HwnasError(f"{name} is not a text file", fix) from None
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        problem = f"{name} is not a text file in UTF-8: line {line} holds the byte 0x{byte:02x}"
        raise HwnasError(problem, f"save it as UTF-8, or {fix}" if fix else "save it as UTF-8") from None
    if 4 * text.count("\0") > len(text):
        raise HwnasError(f"{name} is not a text file, or is UTF-16 without a byte-order mark", "save it as UTF-8")
    return text


def read_json(path: Path, fix: str, max_bytes: int = MAX_BYTES) -> Any:
    """Parse a JSON file of at most ``max_bytes``; NaN, infinities and duplicate keys are invalid.

    Raises HwnasError, with ``fix`` as the advice, when the file is missing, too large or invalid.
    """
    return parse_json(read_bytes(path, fix, max_bytes), str(path), fix)


def parse_json(data: bytes, name: str, fix: str) -> Any:
    """Parse JSON text; ``name`` names it in errors. Raises HwnasError as ``read_json`` does."""
    text = decode_text(data, name, fix)
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise HwnasError(f"{name} is not valid JSON ({error})", fix) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed in a file")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def canonical_json(value: Any) -> str:
    """Return canonical JSON, the text that hashes refer to: sorted keys, no spaces, shortest round-trip floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped(name: str) -> Path:
    """Return a path in ``profilers/``, ``latency_tables/`` or ``configs/``, in the wheel or the checkout."""
    package = Path(str(resources.files("hwnas")))
    inside = package / "_shipped" / name
    return inside if inside.exists() else package.parent / name


def append_lines(path: Path) -> Callable[[str], None]:
    """Return a function that appends a line to ``path`` and flushes it. Raises HwnasError for an unwritable folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise unwritable(path.parent, error) from error

    def append(line: str) -> None:
        file.write(line + "\n")
        file.flush()

    return append
