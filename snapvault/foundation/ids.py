"""Identifiers, one type per kind, so that mixing them up does not type-check."""

from typing import NewType

BlobId = NewType("BlobId", bytes)  # 32 bytes: keyed BLAKE3 of type and plaintext
PackId = NewType("PackId", bytes)  # 32 bytes: BLAKE3 of the pack's bytes
SessionId = NewType("SessionId", str)  # 32 lowercase hex digits; a GC's begins with "gc"
SnapshotId = SessionId  # a snapshot is the session that committed it
HolderId = NewType("HolderId", bytes)  # 16 bytes: BLAKE3 of the holder's public keys
DomainId = NewType("DomainId", bytes)  # 16 random bytes
RepositoryId = NewType("RepositoryId", str)  # 64 hex digits: BLAKE3 of the config object

ID_SIZE = 32
