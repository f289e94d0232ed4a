"""Ed25519 signatures of records and indexes, and the public keys that a user trusts."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hwnas.errors import HwnasError
from hwnas.files import canonical_json
from hwnas.imports import require_extra
from hwnas.sharing.records import Index, Record, Signature
from hwnas.text import printable, quoted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TRUSTED_KEYS = "HWNAS_TRUSTED_KEYS"
KEY_BYTES, SIGNATURE_BYTES, MAX_FILE_BYTES = 32, 64, 4096


@dataclass(frozen=True)
class TrustedKey:
    """A public key, and the option, variable or file that marks it as trusted."""

    key: bytes
    source: str


def keys_folder() -> Path:
    """Return the folder of trusted public keys: every ``*.pub`` file in it is trusted."""
    from platformdirs import user_config_path

    return user_config_path("hwnas") / "keys"


def make_keys(file: Path) -> str:
    """Write a new private key to ``file`` (PEM, readable by its owner only) and its public key to ``file``.pub.

    Returns the public key in base64. Raises HwnasError, and leaves neither file, when one exists or cannot be
    written.
    """
    require_extra("cryptography", "share", "making keys")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    public_file = file.parent / f"{file.name}.pub"
    for path in (file, public_file):
        if os.path.lexists(path):
            raise HwnasError(f"{path} already exists, and keys are never overwritten", "give another file")
    key = Ed25519PrivateKey.generate()
    public = _public(key)
    _write_new(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    try:
        _write_new(public_file, f"{public}\n".encode(), 0o644)
    except BaseException:
        file.unlink()
        raise
    return public


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        raise HwnasError(f"cannot write {path}: {error.strerror}", "give another file") from error


def read_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key from a PEM file. Raises HwnasError unless it is an Ed25519 key without a passphrase."""
    require_extra("cryptography", "share", "signing tables")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    fix = f"make one with `hwnas table keygen {quoted(file)}`"
    try:
        key = load_pem_private_key(_read_small(file, fix), password=None)
    except TypeError:
        raise HwnasError(f"key {file} has a passphrase", "give --key a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise HwnasError(f"{file} is not an Ed25519 private key in PEM", fix)
    return key


def _read_small(file: Path, fix: str) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        raise HwnasError(f"key {file} does not exist", fix) from None
    except OSError as error:
        raise HwnasError(f"cannot read key {file}: {error.strerror}", fix) from error


def _public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


Signed = TypeVar("Signed", Record, Index)


def sign(signed: Signed, key: Ed25519PrivateKey) -> Signed:
    """Return a record or an index with a signature over all its other fields."""
    value = base64.b64encode(key.sign(_signed_text(signed))).decode()
    return signed.model_copy(update={"signature": Signature(key=_public(key), value=value)})


def _signed_text(signed: Record | Index) -> bytes:
    return canonical_json(signed.model_dump(mode="json", exclude={"signature"})).encode()


def signer(signed: Record | Index) -> bytes | None:
    """Return the public key that signed a record or an index; None when it is unsigned.

    Raises HwnasError when the signature does not match the content.
    """
    if signed.signature is None:
        return None
    require_extra("cryptography", "share", "checking a signature")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key, value = _decode(signed.signature.key, KEY_BYTES), _decode(signed.signature.value, SIGNATURE_BYTES)
    try:
        if key is None or value is None:
            raise InvalidSignature
        Ed25519PublicKey.from_public_bytes(key).verify(value, _signed_text(signed))
    except (InvalidSignature, ValueError):
        what = f"the record of {signed.name}" if isinstance(signed, Record) else "the index"
        raise HwnasError(
            f"the signature does not match {what}: one of them was changed",
            "do not use the tables of this shelf, and tell its maintainer",
        ) from None
    return key


def check_index(index: Index, trusted: list[TrustedKey]) -> str:
    """Return a warning when trusted keys are given and none of them signed the index; else an empty text.

    Raises HwnasError when its signature does not match.
    """
    key = signer(index)
    if not trusted or any(key == known.key for known in trusted):
        return ""
    by = "unsigned" if key is None else f"signed by {base64.b64encode(key).decode()}, a key that you do not trust"
    return f"the index of the shelf is {by}: it may omit tables or name older versions"


def trusted_keys(given: list[str]) -> list[TrustedKey]:
    """Return the trusted keys: ``given`` (base64 or files), HWNAS_TRUSTED_KEYS, and the files in ``keys_folder``.

    Raises HwnasError when one of them is neither a public key nor a file with one.
    """
    from_environment = [part.strip() for part in os.environ.get(TRUSTED_KEYS, "").split(",") if part.strip()]
    files = sorted(keys_folder().glob("*.pub"))
    return [
        *(TrustedKey(_read_public(text, "--trust"), "--trust") for text in given),
        *(TrustedKey(_read_public(text, TRUSTED_KEYS), TRUSTED_KEYS) for text in from_environment),
        *(TrustedKey(_read_public(str(file), str(file)), str(file)) for file in files),
    ]


def _read_public(text: str, source: str) -> bytes:
    if key := _decode(text.strip(), KEY_BYTES):
        return key
    fix = "give the .pub file that 'hwnas table keygen' wrote, or the line in it"
    if not Path(text).is_file():
        raise HwnasError(f"{text[:200]!r} ({source}) is neither a public key nor a file", fix)
    line = _read_small(Path(text), fix).decode("utf-8-sig", errors="replace").strip()
    if key := _decode(line, KEY_BYTES):
        return key
    raise HwnasError(f"{text} does not hold a public key", fix)


def _decode(text: str, size: int) -> bytes | None:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return data if len(data) == size else None


def check_trust(record: Record, trusted: list[TrustedKey]) -> str:
    """Return a warning about a record that no trusted key signed; an empty text when a trusted key signed it.

    Raises HwnasError when its signature does not match, and when there are trusted keys and none of them signed it.
    """
    key = signer(record)
    if key is not None and any(key == known.key for known in trusted):
        return ""
    shown = "" if key is None else base64.b64encode(key).decode()
    if not trusted:
        return (
            f"{record.name} is signed by {shown}, a key that you have not marked as trusted"
            if key
            else (f"{record.name} is unsigned: its origin cannot be verified")
        )
    sources = printable(", ".join(dict.fromkeys(known.source for known in trusted)))[:300]
    if key is None:
        raise HwnasError(
            f"{record.name} is unsigned, and you only trust tables signed with certain keys ({sources})",
            "ask its maker to push it with --key, or remove the trusted keys",
        )
    raise HwnasError(
        f"{record.name} is signed by {shown}, which is not one of the keys you trust ({sources})",
        f"if you know whose key it is: --trust {shown}",
    )
