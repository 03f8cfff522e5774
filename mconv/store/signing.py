"""Signatures of what a shared store holds (Ed25519, RFC 8032).

A folder that everybody may write proves nothing by digests: whoever writes an entry writes its
digest. The runs of the default branch have the private key and sign what they make; all others have
the public key alone, read what is signed, and write nowhere.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, NamedTuple

from mconv.errors import StoreError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PRIVATE = "MCONV_STORE_KEY"
PUBLIC = "MCONV_STORE_PUBLIC_KEY"
# what is signed is never anything else that somebody signs with the same key
CONTEXT = b"mconv store entry 1\0"
LENGTH = 32  # bytes of either key
_taken: list[str] = []


class Keys(NamedTuple):
    """The keys of a shared store.

    Attributes:
        public: What signatures are held to.
        private: What entries are signed with; None of a run that only reads.
    """

    public: Ed25519PublicKey
    private: Ed25519PrivateKey | None

    def sign(self, digest: str) -> str:
        """Return the signature of an entry by the hex digest of its JSON."""
        assert self.private is not None
        return base64.b64encode(self.private.sign(CONTEXT + digest.encode())).decode()

    def holds(self, digest: str, signature: str | None) -> bool:
        """Return whether a signature is that of an entry with this digest."""
        from cryptography.exceptions import InvalidSignature

        if signature is None:
            return False
        try:
            given = base64.b64decode(signature, validate=True)
            self.public.verify(given, CONTEXT + digest.encode())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def take_private_key() -> str:
    """Return the private key that the environment gives, and leave none there: what this process
    starts has no use for it."""
    if PRIVATE in os.environ:
        _taken[:] = [os.environ.pop(PRIVATE)]
    return _taken[0] if _taken else ""


def read_keys() -> Keys | None:
    """Return the keys that the environment gives, or None where it gives none.

    Raises UsageError for one that is none, or is not the other's, and StoreError where the package
    that signs is not installed.
    """
    private_text, public_text = take_private_key(), os.environ.get(PUBLIC, "")
    if not private_text and not public_text:
        return None
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (
            Ed25519PrivateKey,
            Ed25519PublicKey,
        )
    except ImportError as problem:
        raise StoreError(
            "a signed store needs the package cryptography, which is not installed",
            hint="pip install 'mconv[remote]'",
        ) from problem
    private = None
    if private_text:
        private = Ed25519PrivateKey.from_private_bytes(_decode(PRIVATE, private_text))
    if not public_text:
        assert private is not None
        return Keys(private.public_key(), private)
    public = Ed25519PublicKey.from_public_bytes(_decode(PUBLIC, public_text))
    if private is not None and private.public_key() != public:
        raise UsageError(f"{PUBLIC} is not the public key of {PRIVATE}")
    return Keys(public, private)


def make_keys() -> tuple[str, str]:
    """Return a new private key and its public key, each in base64.

    Raises StoreError where the package that makes them is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as problem:
        raise StoreError(
            "keys are made by the package cryptography, which is not installed",
            hint="pip install 'mconv[remote]'",
        ) from problem
    private = Ed25519PrivateKey.generate()
    texts = (private.private_bytes_raw(), private.public_key().public_bytes_raw())
    secret, public = (base64.b64encode(text).decode() for text in texts)
    return secret, public


def _decode(name: str, text: str) -> bytes:
    """Return the bytes of a key. Raises UsageError, without what was given."""
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != LENGTH:
        raise UsageError(
            f"{name} is no key: it is {LENGTH} bytes in base64", hint="`mconv store keys` makes two"
        )
    return data
