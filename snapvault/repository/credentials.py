"""What a caller brings to open a repository: a password, a key file, a recovery key."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from snapvault.crypto.recovery import PREFIX as RECOVERY_PREFIX
from snapvault.crypto.recovery import RecoveryKey, decode_recovery_key
from snapvault.foundation.errors import InvalidInput, KeyRejected
from snapvault.foundation.ids import HolderId

Secret = str | Callable[[], str]

SEED_SIZE = 32
_LABEL = "snapvault client key 1"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file with a client's key or the recovery key."""

    path: str | os.PathLike[str]

    def __call__(self) -> bytes:
        try:
            return Path(self.path).read_bytes()
        except OSError as e:
            raise InvalidInput(f"cannot read the key file {os.fspath(self.path)}: {e.strerror}") from e


KeyProvider = KeyFile | Callable[[], bytes]  # the callable gives the text of a key file, or a bare 32-byte seed


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A holder's key file: its seed unwraps the holder's slot; the rest pins the repository."""

    seed: bytes = field(repr=False)
    config_digest: bytes = b""
    holder: HolderId | None = None  # None: a bare seed, which may be anybody's
    name: str = ""
    keyset: int = 0  # the highest that was seen when this was written

    def encode(self) -> bytes:
        """The text of the file."""
        return (
            json.dumps(
                {
                    "snapvault": _LABEL,
                    "repository": self.config_digest.hex(),
                    "holder": "" if self.holder is None else self.holder.hex(),
                    "name": self.name,
                    "keyset": self.keyset,
                    "seed": self.seed.hex(),
                },
                indent=1,
            )
            + "\n"
        ).encode()


@dataclass(frozen=True, slots=True)
class Password:
    """A password, asked for when it is needed."""

    secret: Secret = field(repr=False)

    def get(self) -> str:
        value = self.secret() if callable(self.secret) else self.secret
        if not isinstance(value, str) or not value:
            raise InvalidInput("the password is empty")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput("the password is not valid UTF-8") from None
        return value


Credential = Password | ClientKey | RecoveryKey


def credential(password: Secret | None, keys: KeyProvider | None) -> Credential:
    """What the caller brought; a key file wins over a password.  InvalidInput if there is neither."""
    if keys is not None:
        return parse_key(keys())
    if password is None:
        raise InvalidInput("a password or a key file is needed")
    return Password(password)


def parse_key(data: bytes) -> ClientKey | RecoveryKey:
    """The key in a key file's text (or a bare 32-byte seed); KeyRejected if it is none."""
    if len(data) == SEED_SIZE:
        return ClientKey(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise KeyRejected("the key file is not a snapvault key file") from None
    if text.lstrip().upper().startswith(RECOVERY_PREFIX) or not text.lstrip().startswith("{"):
        return decode_recovery_key(text)
    try:
        m = json.loads(text)
        if m["snapvault"] != _LABEL:
            raise ValueError
        key = ClientKey(
            bytes.fromhex(m["seed"]),
            bytes.fromhex(m["repository"]),
            HolderId(bytes.fromhex(m["holder"])),
            str(m["name"]),
            int(m["keyset"]),
        )
    except (ValueError, KeyError, TypeError):
        raise KeyRejected("the key file is not a snapvault key file") from None
    if len(key.seed) != SEED_SIZE:
        raise KeyRejected("the key file holds a seed of the wrong size")
    return key


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a new file for its owner alone (mode 0600), durably; InvalidInput if it exists or cannot be written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(fd)
    except FileExistsError:
        raise InvalidInput(f"{os.fspath(path)} exists already; name a new file") from None
    except OSError as e:
        raise InvalidInput(f"cannot write {os.fspath(path)}: {e.strerror}") from e
