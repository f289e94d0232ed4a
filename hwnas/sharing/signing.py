"""Who pushed a table: Ed25519 signatures of records, and the public keys a user trusts."""

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
from hwnas.sharing.records import Index, Record, Signature, printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TRUSTED_KEYS = "HWNAS_TRUSTED_KEYS"
KEY_BYTES, SIGNATURE_BYTES, MAX_FILE_BYTES = 32, 64, 4096


@dataclass(frozen=True)
class TrustedKey:
    """A public key, and where the user said that it is to be trusted."""

    key: bytes
    said_in: str


def keys_folder() -> Path:
    """Every ``*.pub`` in it is trusted."""
    from platformdirs import user_config_path

    return user_config_path("hwnas") / "keys"


def make_keys(file: Path) -> str:
    """Write a new private key to ``file`` (PEM, for its owner's eyes) and its public key beside it, as ``file``.pub.

    Returns the public key. Raises HwnasError when either file is there or cannot be written; neither is then left.
    """
    require_extra("cryptography", "share", "making keys")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    public_file = file.parent / f"{file.name}.pub"
    for path in (file, public_file):
        if os.path.lexists(path):
            raise HwnasError(f"{path} is there already, and keys are never overwritten", "give another file")
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
    """The private key in a PEM file. Raises HwnasError when it is missing or not an Ed25519 key without passphrase."""
    require_extra("cryptography", "share", "signing tables")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    fix = f"make one with 'hwnas table keygen {file}'"
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
    """A record, or an index, with a signature over everything else in it."""
    value = base64.b64encode(key.sign(_signed_text(signed))).decode()
    return signed.model_copy(update={"signature": Signature(key=_public(key), value=value)})


def _signed_text(signed: Record | Index) -> bytes:
    return canonical_json(signed.model_dump(mode="json", exclude={"signature"})).encode()


def signer(signed: Record | Index) -> bytes | None:
    """The public key that signed a record, or an index; None when nobody did.

    Raises HwnasError when the signature does not belong to what it says.
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
        what = "the index does not belong to it"
        if isinstance(signed, Record):
            what = f"{signed.name} does not belong to its record"
        raise HwnasError(
            f"the signature of {what}: one of them was changed",
            "do not use what is on this shelf, and tell whoever keeps it",
        ) from None
    return key


def check_index(index: Index, trusted: list[TrustedKey]) -> str:
    """What a user who trusts certain keys must know of a shelf's index; empty when one of them signed it.

    Raises HwnasError when its signature does not belong to it.
    """
    key = signer(index)
    if not trusted or any(key == known.key for known in trusted):
        return ""
    by = "unsigned" if key is None else f"signed by {base64.b64encode(key).decode()}, a key that you do not trust"
    return f"the index of the shelf is {by}: it may leave tables out, or name older ones"


def trusted_keys(given: list[str]) -> list[TrustedKey]:
    """The keys a user trusts: those of ``given`` (base64 or files), of HWNAS_TRUSTED_KEYS and of ``keys_folder``.

    Raises HwnasError when one of them is neither a public key nor a file that holds one.
    """
    from_environment = [part.strip() for part in os.environ.get(TRUSTED_KEYS, "").split(",") if part.strip()]
    files = sorted(keys_folder().glob("*.pub"))
    return [
        *(TrustedKey(_read_public(text, "--trust"), "--trust") for text in given),
        *(TrustedKey(_read_public(text, TRUSTED_KEYS), TRUSTED_KEYS) for text in from_environment),
        *(TrustedKey(_read_public(str(file), str(file)), str(file)) for file in files),
    ]


def _read_public(text: str, said_in: str) -> bytes:
    if key := _decode(text.strip(), KEY_BYTES):
        return key
    fix = "give the file .pub that 'hwnas table keygen' wrote, or the line in it"
    if not Path(text).is_file():
        raise HwnasError(f"{text[:200]!r} ({said_in}) is neither a public key nor a file", fix)
    line = _read_small(Path(text), fix).decode("utf-8", errors="replace").strip()
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
    """What the user must know of a record's origin; empty when a key signed it that they trust.

    Raises HwnasError when its signature does not belong to it, and when there are trusted keys but none signed it.
    """
    key = signer(record)
    if key is not None and any(key == known.key for known in trusted):
        return ""
    shown = "" if key is None else base64.b64encode(key).decode()
    if not trusted:
        return (
            f"{record.name} is signed by {shown}, which you have not said you trust"
            if key
            else (f"{record.name} is unsigned: nothing proves who made it")
        )
    places = printable(", ".join(dict.fromkeys(known.said_in for known in trusted)))[:300]
    if key is None:
        raise HwnasError(
            f"{record.name} is unsigned, and you trust tables of certain keys only ({places})",
            "have its maker push it with --key, or take those keys away",
        )
    raise HwnasError(
        f"{record.name} is signed by {shown}, which is not one of the keys you trust ({places})",
        f"if you know whose key it is: --trust {shown}",
    )
