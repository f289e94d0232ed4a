"""A shelf's files, wherever they lie: fsspec carries, this bounds every read and turns every failure into one line.

What the backends promise for ``create``: local folders (a hard link), S3 (If-None-Match), Google Cloud and Azure (their
own conditions) let exactly one writer have a name. Others, such as hf://, look whether it is free and then write.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hwnas.errors import HwnasError
from hwnas.imports import require_extra
from hwnas.sharing.records import printable

CHUNK_BYTES = 1 << 20
# Seconds for a whole answer, for a connection, and between two pieces of an answer.
TOTAL_S, CONNECT_S, READ_S = 600.0, 20.0, 60.0

EXTRAS = {"s3": "hwnas[s3]", "s3a": "hwnas[s3]", "hf": "hwnas[hf]", "http": "hwnas[share]", "https": "hwnas[share]"}


@dataclass(frozen=True)
class TableRegistry:
    """An opened shelf: ``shown`` is its address without passwords, ``root`` where it begins in ``filesystem``."""

    shown: str
    filesystem: Any
    root: str
    protocol: str

    @property
    def folder(self) -> Path | None:
        """Where it lies on this machine; None elsewhere."""
        return Path(self.root) if self.protocol == "file" else None

    @property
    def can_list(self) -> bool:
        return self.protocol not in ("http", "https")

    def at(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def name_of(self, path: str) -> str:
        """What an error calls a file of the shelf."""
        return f"{self.shown.rstrip('/')}/{path}"


def open_shelf(address: str) -> TableRegistry:
    """The shelf at a folder or an fsspec URL; nothing is read yet.

    Raises HwnasError when no installed package speaks the URL's protocol.
    """
    from fsspec.core import split_protocol, url_to_fs  # type: ignore[import-untyped]

    shown = without_password(printable(address))
    if not address.strip() or "::" in address:
        raise HwnasError(f"{shown!r} is not a shelf", "give a folder or one URL such as s3://bucket/tables")
    protocol = split_protocol(address)[0] or "file"
    protocol = "file" if protocol == "local" else protocol
    options = _options(protocol)
    try:
        # A new instance each time: those that fsspec keeps remember listings and what the environment said before.
        filesystem, root = url_to_fs(address, skip_instance_cache=True, **options)
    except ImportError as error:
        package = EXTRAS.get(protocol)
        how = f"pip install '{package}'" if package else " ".join(str(error).split())
        raise HwnasError(f"the package that reads {protocol}:// shelves is not installed ({shown})", how) from None
    except ValueError as error:
        if "Protocol not known" in str(error):
            fix = "use a folder, https://, s3://, hf:// or another protocol of fsspec"
            raise HwnasError(f"no package knows the protocol of shelf {shown}", fix) from None
        raise unreachable(shown, error) from error
    except Exception as error:
        raise unreachable(shown, error) from error
    return TableRegistry(shown, filesystem, str(root), protocol)


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("http", "https"):
        return {}
    aiohttp = require_extra("aiohttp", "share", "reading tables over http")

    timeout = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=READ_S)
    # Bytes as they are stored: hashes and sizes are of these, and nothing can unfold into gigabytes.
    plain = {"headers": {"Accept-Encoding": "identity"}, "auto_decompress": False}
    return {"client_kwargs": {"timeout": timeout, "trust_env": True, **plain}}  # trust_env: proxies


def read(shelf: TableRegistry, path: str, limit: int) -> bytes | None:
    """The first ``limit`` + 1 bytes of a file, so that a longer one can be told; None when there is no such file.

    Raises HwnasError when the shelf cannot be reached or the answer breaks off.
    """
    full = shelf.at(path)
    try:
        with _one_line(shelf):
            if shelf.folder and Path(full).exists() and not Path(full).is_file():
                raise HwnasError(f"{shelf.name_of(path)} is not a file", "remove it from the shelf")
            if shelf.folder:
                with open(full, "rb") as file:
                    return read_at_most(file, limit + 1)
            if not shelf.can_list:
                # block_size 0 streams; the size given here only spares a request for it, and need not be right.
                with shelf.filesystem.open(full, "rb", block_size=0, size=limit) as stream:
                    return read_at_most(stream, limit + 1)
            data: bytes = shelf.filesystem.cat_file(full, start=0, end=limit + 1)
            return data
    except FileNotFoundError:
        return None


def read_at_most(stream: BinaryIO, size: int) -> bytes:
    """The first ``size`` bytes of a stream, or all of a shorter one, without taking room for more than there are."""
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(CHUNK_BYTES, size - len(data)))):
        data += chunk
    return bytes(data)


def read_many(shelf: TableRegistry, paths: list[str], limit: int) -> list[bytes | None]:
    """As ``read``, several at once where the backend can."""
    with _one_line(shelf):
        answers = shelf.filesystem.cat_ranges([shelf.at(path) for path in paths], 0, limit + 1, on_error="return")
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def list_files(shelf: TableRegistry, folder: str) -> dict[str, int] | None:
    """Names and sizes of the ``.json`` files in a folder of the shelf as it is now; None when there is no such folder.

    Raises HwnasError when the shelf cannot be reached.
    """
    where = shelf.at(folder).rstrip("/")
    try:
        with _one_line(shelf):
            shelf.filesystem.invalidate_cache()
            found = shelf.filesystem.ls(where, detail=True)
    except FileNotFoundError:
        return None
    files = {item["name"].rsplit("/", 1)[-1]: item["size"] or 0 for item in found if item["type"] == "file"}
    return {name: size for name, size in sorted(files.items()) if name.endswith(".json") and name[0] != "."}


def check_writable(shelf: TableRegistry) -> None:
    """Raises HwnasError for a shelf that can only be read."""
    if not shelf.can_list:
        raise HwnasError(
            f"shelf {shelf.shown} can only be read: nothing is pushed over {shelf.protocol}",
            "push to the folder or bucket that the server serves",
        )


def create(shelf: TableRegistry, path: str, data: bytes) -> bool:
    """Write a file that is not there yet; False, and nothing is touched, when it is.

    Raises HwnasError when it cannot be written.
    """
    full = shelf.at(path)
    if shelf.folder:
        with _one_line(shelf, writing=True):
            _make_folders(shelf, path)
            return place(Path(full), data, replace=False)
    try:
        with _one_line(shelf, writing=True):
            try:
                shelf.filesystem.pipe_file(full, data, mode="create")
            except FileExistsError:
                return False
    except HwnasError:
        # A server may say in its own words that the file is there, or its answer to our own write got lost.
        if (there := read(shelf, path, len(data))) is None:
            raise
        return there == data
    return True


def replace(shelf: TableRegistry, path: str, data: bytes) -> None:
    """Write a file whole, in one step, over what is there. Raises HwnasError when it cannot be written."""
    with _one_line(shelf, writing=True):
        if shelf.folder:
            _make_folders(shelf, path)
            place(Path(shelf.at(path)), data, replace=True)
        else:
            shelf.filesystem.pipe_file(shelf.at(path), data)


def _make_folders(shelf: TableRegistry, path: str) -> None:
    """The shelf's folder and the one in it that ``path`` lies in; not its parents, which a mistyped address lacks."""
    Path(shelf.root).mkdir(exist_ok=True)
    Path(shelf.at(path)).parent.mkdir(exist_ok=True)


def place(path: Path, data: bytes, replace: bool) -> bool:
    """Write a file on this machine, whole or not at all; False when one is there and must not be replaced."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        if replace:
            os.replace(temporary, path)
            return True
        return _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    """Give the finished file its name unless another has it: the file system lets one of several have it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: the name is still one writer's alone
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.close(descriptor)
        try:
            os.replace(temporary, path)
        except OSError:
            path.unlink()
            raise
    return True


@contextmanager
def _one_line(shelf: TableRegistry, writing: bool = False) -> Iterator[None]:
    """Lets FileNotFoundError through when reading; every other failure becomes one HwnasError.

    Every backend has error classes of its own (aiohttp's, botocore's, …), so all are caught; nothing but calls of the
    backend may stand inside.
    """
    try:
        yield
    except HwnasError:
        raise
    except FileNotFoundError as error:
        if writing:
            raise unreachable(shelf.shown, error) from error
        raise
    except Exception as error:
        raise unreachable(shelf.shown, error, writing) from error


def unreachable(shown: str, error: Exception, writing: bool = False) -> HwnasError:
    """One line on why a shelf cannot be read or written, and what fixes it."""
    kind = type(error).__name__
    said = error.strerror if isinstance(error, OSError) and error.strerror else f"{kind}: {error}".removesuffix(": ")
    text = without_password(printable(" ".join(said.split()))[:200])
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        fix = (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), or FSSPEC_S3_ANON=true to read a "
            "public bucket"
        )
        return HwnasError(f"shelf {shown}: no credentials found", fix)
    if isinstance(error, PermissionError):
        return HwnasError(f"shelf {shown}: access denied ({text})", "check your rights there and your credentials")
    if isinstance(error, FileNotFoundError):
        return HwnasError(f"shelf {shown} does not exist", "check its address; folders above it are not made")
    if isinstance(error, NotImplementedError):
        return HwnasError(f"shelf {shown} can only be read", "push to another one")
    return HwnasError(
        f"shelf {shown} cannot be {'written' if writing else 'read'}: {text}",
        "check its address, your rights there and the network, then run the same command again",
    )


def without_password(text: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", text)
