"""Signatures of a shared store's entries, by keys as people have them and by RFC 8032's own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mconv.answers import CalibrateAnswer
from mconv.errors import UsageError
from mconv.store import signing
from mconv.store.local import Entry, Sealed, hash_entry
from mconv.store.shared import SharedStore, open_store
from mconv.values import to_json

KEY = "ab" * 32
# RFC 8032, 7.1, TEST 1
SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def encode(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (signing.PRIVATE, signing.PUBLIC):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(signing, "_taken", [])


def use(monkeypatch: pytest.MonkeyPatch, private: str = "", public: str = "") -> None:
    signing._taken.clear()
    for name, value in ((signing.PRIVATE, private), (signing.PUBLIC, public)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)


def make_entry(folder: Path, text: str = "honest") -> tuple[Entry, Path]:
    files = folder / f"files-{len(list(folder.iterdir()))}"
    files.mkdir()
    (files / "model.onnx").write_text(text)
    return Entry(key=KEY, label="a step", answer=CalibrateAnswer(count=1)), files


def open_shared(folder: Path, name: str) -> SharedStore:
    store = open_store(f"file://{folder / 'remote'}", folder / name)
    assert isinstance(store, SharedStore)
    return store


def test_keys_are_those_of_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, private=encode(SECRET))
    keys = signing.read_keys()
    assert keys is not None
    assert keys.public.public_bytes_raw().hex() == PUBLIC
    signature = keys.sign("00" * 32)
    assert keys.holds("00" * 32, signature)
    known = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRET))
    assert base64.b64decode(signature) == known.sign(signing.CONTEXT + b"00" * 32)
    assert signing.PRIVATE not in os.environ, "what it starts must not see it"
    again = signing.read_keys()
    assert again is not None
    assert again.private is not None, "a second store is opened with it, too"


@pytest.mark.parametrize("wrong", [None, "", "x", "AAAA", base64.b64encode(b"1" * 64).decode()])
def test_what_is_no_signature_holds_nothing(
    wrong: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, public=encode(PUBLIC))
    keys = signing.read_keys()
    assert keys is not None
    assert keys.private is None
    assert not keys.holds("00" * 32, wrong)


@pytest.mark.parametrize("text", ["x", "AAAA", "=", encode("ab" * 31)])
def test_what_is_no_key_is_refused_without_being_shown(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, private=text)
    with pytest.raises(UsageError, match="is no key") as caught:
        signing.read_keys()
    assert text not in caught.value.message.replace("32 bytes in base64", "") or len(text) < 2


def test_keys_that_are_not_a_pair_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, private=encode("11" * 32), public=encode(PUBLIC))
    with pytest.raises(UsageError, match="is not the public key"):
        signing.read_keys()


def test_made_keys_are_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = signing.make_keys()
    use(monkeypatch, private, public)
    assert signing.read_keys() is not None


def test_a_pull_request_reads_what_the_default_branch_signed_and_writes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = signing.make_keys()
    use(monkeypatch, private)
    branch = open_shared(tmp_path, "branch")
    stored = branch.put(*make_entry(tmp_path))
    use(monkeypatch, public=public)
    pull = open_shared(tmp_path, "pull")
    entry = pull.read(KEY)
    assert entry == stored
    assert pull.intact(entry)
    other = "cd" * 32
    made, files = make_entry(tmp_path)
    pull.put(Entry(key=other, label=made.label, answer=made.answer), files)
    assert not list((tmp_path / "remote").rglob(f"{other}*"))


@pytest.mark.parametrize("forgery", ["none", "other key", "other entry", "changed file"])
def test_an_entry_that_is_not_signed_is_a_miss_and_is_made_anew(
    forgery: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    private, public = signing.make_keys()
    writer = {"none": "", "other key": signing.make_keys()[0]}.get(forgery, private)
    use(monkeypatch, writer)
    open_shared(tmp_path, "forger").put(*make_entry(tmp_path, "forged"))
    (path,) = (tmp_path / "remote").rglob(f"{KEY}.json")
    sealed = json.loads(path.read_text())
    if forgery == "other entry":  # the signature of what somebody made for another key
        use(monkeypatch, private)
        keys = signing.read_keys()
        assert keys is not None
        sealed["signature"] = keys.sign("00" * 32)
        path.write_text(json.dumps(sealed))
    if forgery == "changed file":
        made, _ = make_entry(tmp_path)
        sealed["entry"]["files"][0]["sha256"] = "00" * 32
        entry = Entry(key=KEY, label=made.label, answer=made.answer, files=())
        path.write_text(
            to_json(Sealed(digest=hash_entry(entry), entry=entry, signature=sealed["signature"]))
        )
    use(monkeypatch, public=public)
    capsys.readouterr()
    reader = open_shared(tmp_path, "reader")
    assert reader.read(KEY) is None
    assert reader.read(KEY) is None
    assert capsys.readouterr().err.count("are not signed with its key") == 1
    assert not (tmp_path / "reader" / "v1" / KEY[:2]).exists()
    use(monkeypatch, private)
    owner = open_shared(tmp_path, "owner")
    assert owner.read(KEY) is None
    stored = owner.put(*make_entry(tmp_path))
    assert open_shared(tmp_path, "again").read(KEY) == stored


def test_a_zip_that_is_larger_than_its_entry_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature covers the entry, not the zip."""
    private, public = signing.make_keys()
    use(monkeypatch, private)
    open_shared(tmp_path, "branch").put(*make_entry(tmp_path))
    (archive,) = (tmp_path / "remote").rglob(f"{KEY}.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("model.onnx", b"\0" * 300_000_000)
    use(monkeypatch, public=public)
    reader = open_shared(tmp_path, "reader")
    entry = reader.read(KEY)
    assert entry is not None
    written: list[int] = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", lambda *given: (written.append(1), copy(*given)))
    assert not reader.intact(entry)
    assert written == []


def test_the_private_key_is_taken_whatever_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, signing.make_keys()[0])
    open_store(str(tmp_path / "store"), tmp_path / "front")
    assert signing.PRIVATE not in os.environ
