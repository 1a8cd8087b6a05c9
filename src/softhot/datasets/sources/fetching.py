"""What every download goes through: nothing is kept whose checksum is not the published one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from softhot.core.check import InputError


def verified(data: bytes, sha256: str, path: Path) -> bytes:
    """``data`` if its SHA-256 is this one; ``path`` is what the error names."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        hint = f"The file is damaged or another version: delete {path} and fetch it again."
        raise InputError(f"SHA-256 of {path.name}", f"{sha256[:16]}...", found[:16], hint)
    return data


def kept(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` whole or not at all, so that no half download is ever read."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        hint = f"{error.strerror or error}. Set SOFTHOT_DATA to a folder that can be written to."
        raise InputError("cache folder", "writable", str(path.parent), hint) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def contained(path: Path) -> bytes:
    """What is in the file, or an error that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("file", "readable", str(path), f"{error.strerror or error}.") from None
