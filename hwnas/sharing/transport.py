"""Read and write the files of a table registry through fsspec, with bounded reads and one-line errors.

``create`` is atomic in local folders (a hard link), on S3 (If-None-Match), and on Google Cloud and Azure (conditions of
their own): exactly one writer gets a name. Other backends, such as hf://, check that the name is free and then write.
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
from hwnas.text import printable

CHUNK_BYTES = 1 << 20
# Timeouts in seconds: for a whole answer, for connecting, and between two parts of an answer.
TOTAL_S, CONNECT_S, READ_S = 600.0, 20.0, 60.0

EXTRAS = {"s3": "hwnas[s3]", "s3a": "hwnas[s3]", "hf": "hwnas[hf]", "http": "hwnas[share]", "https": "hwnas[share]"}


@dataclass(frozen=True)
class TableRegistry:
    """An opened registry: ``shown`` is its address without passwords, ``root`` its path in ``filesystem``."""

    shown: str
    filesystem: Any
    root: str
    protocol: str

    @property
    def folder(self) -> Path | None:
        """Its local folder; None when it is not on this machine."""
        return Path(self.root) if self.protocol == "file" else None

    @property
    def can_list(self) -> bool:
        return self.protocol not in ("http", "https")

    def at(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def name_of(self, path: str) -> str:
        """Return the name of one of its files for error messages."""
        return f"{self.shown.rstrip('/')}/{path}"


def open_registry(address: str) -> TableRegistry:
    """Open the registry at a folder or an fsspec URL, without reading anything.

    Raises HwnasError when no installed package supports the URL's protocol.
    """
    from fsspec.core import split_protocol, url_to_fs  # type: ignore[import-untyped]

    shown = without_password(printable(address))
    if not address.strip() or "::" in address:
        raise HwnasError(f"{shown!r} is not a shelf", "give a folder or one URL such as s3://bucket/tables")
    protocol = split_protocol(address)[0] or "file"
    protocol = "file" if protocol == "local" else protocol
    options = _options(protocol)
    try:
        # A new instance each time: fsspec's cached instances keep old listings and environment variables.
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
    # Take the stored bytes: hashes and sizes refer to them, and a compressed answer cannot expand into gigabytes.
    plain = {"headers": {"Accept-Encoding": "identity"}, "auto_decompress": False}
    return {"client_kwargs": {"timeout": timeout, "trust_env": True, **plain}}  # trust_env: proxies


def read(registry: TableRegistry, path: str, limit: int) -> bytes | None:
    """Return at most ``limit`` + 1 bytes of a file, so that a longer file is detected; None when it does not exist.

    Raises HwnasError when the registry cannot be reached or the answer is incomplete.
    """
    full = registry.at(path)
    try:
        with _as_hwnas_error(registry):
            if registry.folder and Path(full).exists() and not Path(full).is_file():
                raise HwnasError(f"{registry.name_of(path)} is not a file", "remove it from the shelf")
            if registry.folder:
                with open(full, "rb") as file:
                    return read_at_most(file, limit + 1)
            if not registry.can_list:
                # block_size 0 streams; the given size only saves a request and need not be correct.
                with registry.filesystem.open(full, "rb", block_size=0, size=limit) as stream:
                    return read_at_most(stream, limit + 1)
            data: bytes = registry.filesystem.cat_file(full, start=0, end=limit + 1)
            return data
    except FileNotFoundError:
        return None


def read_at_most(stream: BinaryIO, size: int) -> bytes:
    """Return the first ``size`` bytes of a stream, or all of a shorter one, without allocating more than it has."""
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(CHUNK_BYTES, size - len(data)))):
        data += chunk
    return bytes(data)


def read_many(registry: TableRegistry, paths: list[str], limit: int) -> list[bytes | None]:
    """Read several files as ``read`` does, concurrently where the backend can."""
    with _as_hwnas_error(registry):
        answers = registry.filesystem.cat_ranges([registry.at(path) for path in paths], 0, limit + 1, on_error="return")
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def list_files(registry: TableRegistry, folder: str) -> dict[str, int] | None:
    """Return the current ``.json`` files of a folder with their sizes in bytes; None when the folder does not exist.

    Raises HwnasError when the registry cannot be reached.
    """
    where = registry.at(folder).rstrip("/")
    try:
        with _as_hwnas_error(registry):
            registry.filesystem.invalidate_cache()
            found = registry.filesystem.ls(where, detail=True)
    except FileNotFoundError:
        return None
    files = {item["name"].rsplit("/", 1)[-1]: item["size"] or 0 for item in found if item["type"] == "file"}
    return {name: size for name, size in sorted(files.items()) if name.endswith(".json") and name[0] != "."}


def check_writable(registry: TableRegistry) -> None:
    """Raise HwnasError for a registry that can only be read."""
    if not registry.can_list:
        raise HwnasError(
            f"shelf {registry.shown} can only be read: nothing is pushed over {registry.protocol}",
            "push to the folder or bucket that the server serves",
        )


def create(registry: TableRegistry, path: str, data: bytes) -> bool:
    """Write a new file; return False, and change nothing, when it exists.

    Raises HwnasError when it cannot be written.
    """
    full = registry.at(path)
    if registry.folder:
        with _as_hwnas_error(registry, writing=True):
            _make_folders(registry, path)
            return write_file(Path(full), data, replace=False)
    try:
        with _as_hwnas_error(registry, writing=True):
            try:
                registry.filesystem.pipe_file(full, data, mode="create")
            except FileExistsError:
                return False
    except HwnasError:
        # The server may report an existing file in its own way, or its answer to our write was lost.
        if (there := read(registry, path, len(data))) is None:
            raise
        return there == data
    return True


def replace(registry: TableRegistry, path: str, data: bytes) -> None:
    """Write a file atomically, replacing an existing one. Raises HwnasError when it cannot be written."""
    with _as_hwnas_error(registry, writing=True):
        if registry.folder:
            _make_folders(registry, path)
            write_file(Path(registry.at(path)), data, replace=True)
        else:
            registry.filesystem.pipe_file(registry.at(path), data)


def _make_folders(registry: TableRegistry, path: str) -> None:
    """Create the registry's folder and the folder of ``path`` in it, but no parents: a mistyped address lacks those."""
    Path(registry.root).mkdir(exist_ok=True)
    Path(registry.at(path)).parent.mkdir(exist_ok=True)


def write_file(path: Path, data: bytes, replace: bool) -> bool:
    """Write a local file atomically; return False when it exists and must not be replaced."""
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
    """Give the finished file its name unless that exists; the file system lets exactly one writer succeed."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: O_EXCL still admits one writer only
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
def _as_hwnas_error(registry: TableRegistry, writing: bool = False) -> Iterator[None]:
    """Turn every failure into one HwnasError, except FileNotFoundError while reading.

    Every backend has its own error classes (aiohttp's, botocore's, …), so all are caught; put only calls of the backend
    inside.
    """
    try:
        yield
    except HwnasError:
        raise
    except FileNotFoundError as error:
        if writing:
            raise unreachable(registry.shown, error) from error
        raise
    except Exception as error:
        raise unreachable(registry.shown, error, writing) from error


def unreachable(shown: str, error: Exception, writing: bool = False) -> HwnasError:
    """Return a one-line error that says why a registry cannot be read or written, and the fix."""
    kind = type(error).__name__
    reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{kind}: {error}".removesuffix(": ")
    text = without_password(printable(" ".join(reason.split()))[:200])
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
