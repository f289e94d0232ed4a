"""Keys, signatures and trust."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.sharing import signing
from hwnas.sharing.signing import TrustedKey
from hwnas.sharing.table_files import make_record
from support.command import Run, assert_one_clear_line
from support.shelves import files_in, record_of, refuses_pull, rewrite


def test_keygen_writes_two_files_and_overwrites_none(run: Run, tmp_path: Path) -> None:
    result = run("table", "keygen", tmp_path / "a.pem")
    public = (tmp_path / "a.pem.pub").read_text()
    assert len(base64.b64decode(public)) == 32
    assert public.strip() in result.stdout
    assert "keys" in result.stdout
    assert (tmp_path / "a.pem").stat().st_mode & 0o777 == 0o600
    before = files_in(tmp_path)
    assert_one_clear_line(run("table", "keygen", tmp_path / "a.pem"), "a.pem already exists")
    (tmp_path / "b.pem.pub").write_text("x")
    assert_one_clear_line(run("table", "keygen", tmp_path / "b.pem"), "b.pem.pub already exists")
    assert_one_clear_line(run("table", "keygen", tmp_path / "none" / "c.pem"), "cannot write")
    assert_one_clear_line(run("table", "keygen", "."), "already exists")
    assert files_in(tmp_path) == {**before, "b.pem.pub": b"x"}


def test_a_signature_of_a_trusted_key_passes_without_a_remark(
    run: Run, tmp_path: Path, cpu: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_SIGNING_KEY", str(key))
    assert "signed by" in run("table", "push", cpu, tmp_path / "shelf").stdout
    public = key.with_name("key.pem.pub")
    pull = ("table", "pull", "cpu", tmp_path / "shelf", "--out", tmp_path / "got.json")
    assert "a key that you have not marked as trusted" in run(*pull).stderr
    for trust in (public, public.read_text().strip()):
        result = run(*pull, "--trust", trust)
        assert (result.exit_code, result.stderr) == (0, "")
    monkeypatch.setenv("HWNAS_TRUSTED_KEYS", f"{public}, {base64.b64encode(bytes(32)).decode()}")
    assert run(*pull).stderr == ""
    monkeypatch.delenv("HWNAS_TRUSTED_KEYS")
    (tmp_path / "config" / "hwnas" / "keys").mkdir(parents=True)
    (tmp_path / "config" / "hwnas" / "keys" / "me.pub").write_text(public.read_text())
    assert run(*pull).stderr == ""
    assert json.loads(run(*pull, "--json").stdout)["trusted"] is True


def test_with_trusted_keys_only_their_tables_are_taken(run: Run, tmp_path: Path, cpu: Path, key: Path) -> None:
    run("table", "keygen", tmp_path / "stranger.pem")
    run("table", "push", cpu, tmp_path / "shelf")
    run("table", "push", cpu, tmp_path / "shelf", "--name", "theirs", "--key", tmp_path / "stranger.pem")
    before = files_in(tmp_path)
    trust = ("--trust", tmp_path / "key.pem.pub")
    assert_one_clear_line(run("table", "pull", "cpu", tmp_path / "shelf", *trust), "unsigned", "--trust", "--key")
    theirs = (tmp_path / "stranger.pem.pub").read_text().strip().replace("+", r"\+")
    result = run("table", "pull", "theirs", tmp_path / "shelf", *trust)
    assert_one_clear_line(result, "not one of the keys you trust", f"--trust {theirs}")
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"pushed": "2030-01-01T00:00:00Z"},
        {"file_sha256": "0" * 64},
        {"signature": {"key": base64.b64encode(bytes(32)).decode()}},
        {"signature": {"value": base64.b64encode(bytes(64)).decode()}},
        {"signature": {"value": "not base64"}},
        {"signature": {"key": "AAAA"}},
        {"description": {"provenance": "measured"}},
    ],
)
def test_a_signature_that_does_not_verify_is_always_refused(
    run: Run, tmp_path: Path, cpu: Path, key: Path, change: dict[str, Any]
) -> None:
    run("table", "push", cpu, tmp_path / "shelf", "--key", key)
    whole = record_of(tmp_path / "shelf")
    rewrite(tmp_path / "shelf", **{k: {**whole[k], **v} if isinstance(v, dict) else v for k, v in change.items()})
    refuses_pull(run, tmp_path / "shelf", tmp_path, "signature does not match the record of cpu", "do not use")


def test_a_signed_record_cannot_take_another_name(run: Run, tmp_path: Path, cpu: Path, key: Path) -> None:
    run("table", "push", cpu, tmp_path / "shelf", "--name", "slow", "--key", key)
    record = record_of(tmp_path / "shelf", "slow") | {"name": "cpu"}
    (tmp_path / "shelf/index.json").write_text(json.dumps({"format": "hwnas-shelf", "version": 1, "records": [record]}))
    refuses_pull(run, tmp_path / "shelf", tmp_path, "does not match")


def test_a_signature_is_added_to_what_is_there_only_when_asked(run: Run, folder: Path, cpu: Path, key: Path) -> None:
    push = ("table", "push", cpu, folder)
    assert_one_clear_line(run(*push, "--key", key), "not signed with this key", "--replace")
    assert "replaced" in run(*push, "--key", key, "--replace").stdout
    assert record_of(folder)["signature"]["key"] == key.with_name("key.pem.pub").read_text().strip()
    assert "already there" in run(*push).stdout, "and an unsigned push does not take it away"
    assert record_of(folder)["signature"]


def test_invalid_keys_are_refused_in_one_line(run: Run, tmp_path: Path, cpu: Path, folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"secret")
    keys = {
        "ec.pem": ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption()),
        "locked.pem": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked),
        "text.pem": b"not a key",
    }
    for name, data in keys.items():
        (tmp_path / name).write_bytes(data)
        words = "passphrase" if name == "locked.pem" else "not an Ed25519 private key"
        assert_one_clear_line(run("table", "push", cpu, folder, "--key", tmp_path / name), name, words)
    assert_one_clear_line(run("table", "push", cpu, folder, "--key", tmp_path / "none.pem"), "none.pem", "keygen")
    pull = ("table", "pull", "cpu", folder)
    assert_one_clear_line(run(*pull, "--trust", "AAAA"), "AAAA.*neither a public key nor a file", "keygen")
    assert_one_clear_line(run(*pull, "--trust", tmp_path / "text.pem"), "does not hold a public key")
    (tmp_path / "config" / "hwnas" / "keys").mkdir(parents=True)
    (tmp_path / "config" / "hwnas" / "keys" / "bad.pub").write_text("not a key")
    assert_one_clear_line(run(*pull), "bad.pub does not hold a public key")


def test_trust_compares_keys_not_their_text(cpu: Path, key: Path) -> None:
    record = signing.sign(make_record(cpu.read_bytes(), "cpu", "cpu"), signing.read_key(key))
    public = base64.b64decode(key.with_name("key.pem.pub").read_text())
    assert signing.signer(record) == public
    assert signing.check_trust(record, [TrustedKey(bytes(32), "x"), TrustedKey(public, "y")]) == ""
    assert signing.signer(record.model_copy(update={"signature": None})) is None


def test_the_index_is_signed_by_who_wrote_it_last(run: Run, tmp_path: Path, cpu: Path, other: Path) -> None:
    where, key = tmp_path / "shelf", tmp_path / "key.pem"
    public = signing.make_keys(key)
    assert run("table", "push", cpu, where, "--key", key).exit_code == 0
    index = json.loads((where / "index.json").read_text())
    assert index["signature"]["key"] == public
    pull = ("table", "pull", "cpu", where, "--trust", public, "--force", "--out", tmp_path / "got.json")
    assert run(*pull).stderr == ""
    # Somebody without a key pushes: the record that is trusted stays so, of the index nobody vouches for the whole.
    assert run("table", "push", other, where).exit_code == 0
    assert "signature" not in json.loads((where / "index.json").read_text())
    got = run(*pull)
    assert got.exit_code == 0, got.output
    assert "index of the shelf is unsigned" in got.stderr
    assert json.loads(run(*pull, "--json").stdout)["index_trusted"] is False
    assert run("table", "push", cpu, where, "--key", key).exit_code == 0  # already there: the index is signed again
    assert run(*pull).stderr == ""
    # A signed index from which a record was taken out.
    index["records"] = []
    (where / "index.json").write_text(json.dumps(index))
    assert_one_clear_line(run(*pull), "signature does not match the index")
    assert_one_clear_line(run("table", "list", "--shelf", where), "signature does not match the index")
