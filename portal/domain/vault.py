"""What must be readable again is kept encrypted, with keys from the configuration."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

REGISTRATION_TOKENS = "registration tokens"
SECOND_FACTORS = "second factors"
JOB_SECRETS = "secrets of jobs"


class Vault:
    """Encrypts with the first key and decrypts with every one, so that a key can be replaced without a gap.

    `keys` are texts of any form; each is made into a key of the cipher's length, and into another one for each
    `purpose`, so that what was closed for one purpose is opened for no other. Cipher: Fernet, which is
    AES-128 in CBC mode with HMAC-SHA256 (docs/decisions/0010-registration-tokens-are-encrypted.md).
    """

    def __init__(self, keys: Sequence[str], purpose: str = REGISTRATION_TOKENS) -> None:
        self._box = MultiFernet([Fernet(_stretched(key, purpose)) for key in keys])

    def close(self, text: str) -> bytes:
        """The text, encrypted with the first key."""
        return self._box.encrypt(text.encode())

    def open(self, ciphertext: bytes) -> str | None:
        """The text again; None when none of the keys fits, or the ciphertext was changed."""
        try:
            return self._box.decrypt(ciphertext).decode()
        except InvalidToken:
            return None

    def renew(self, ciphertext: bytes) -> bytes | None:
        """The same text, encrypted anew with the first key; None when none of the keys fits."""
        try:
            return self._box.rotate(ciphertext)
        except InvalidToken:
            return None


def _stretched(key: str, purpose: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(f"{purpose}\0{key}".encode()).digest())
