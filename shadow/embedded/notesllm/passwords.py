"""Password hashes with scrypt, and tokens of which only a hash is stored."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from typing import Final

__all__ = ["DEFAULT_COST", "hash_password", "new_secret", "secret_matches", "verify_password"]

DEFAULT_COST: Final = 2**14
"""scrypt's `n`. RFC 7914, section 2, leaves it to the application; this takes about 50 ms and 16 MiB."""


async def hash_password(password: str, cost: int = DEFAULT_COST) -> str:
    """A salted hash, "scrypt$cost$salt$hash", computed in a thread."""
    salt = os.urandom(16)
    return f"scrypt${cost}${salt.hex()}${await _scrypt(password, salt, cost)}"


async def verify_password(password: str, stored: str) -> bool:
    """Whether `password` is the one that `stored` is the hash of."""
    _, cost, salt, digest = stored.split("$")
    return hmac.compare_digest(digest, await _scrypt(password, bytes.fromhex(salt), int(cost)))


async def _scrypt(password: str, salt: bytes, cost: int) -> str:
    digest = await asyncio.to_thread(hashlib.scrypt, password.encode(), salt=salt, n=cost, r=8, p=1, dklen=32)
    return digest.hex()


def new_secret() -> tuple[str, str]:
    """A fresh secret and the hash of it to store."""
    secret = secrets.token_urlsafe(24)
    return secret, hashlib.sha256(secret.encode()).hexdigest()


def secret_matches(secret: str, stored: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), stored)
