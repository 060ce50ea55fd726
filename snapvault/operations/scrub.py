"""Scrub (``check --no-key``): every object against its own name or trailing digest, without any key."""

import time
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from snapvault.backend.control import controlled
from snapvault.backend.factory import open_backend
from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.chain import decode_chain
from snapvault.format.index import decode_index
from snapvault.format.local import decode_gc, decode_tombstone
from snapvault.format.session import decode_session
from snapvault.format.signed import decode_signed
from snapvault.format.slot import decode_slot
from snapvault.format.snapshot import decode_snapshot
from snapvault.format.wire import FormatError, Kind, check_frame
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Control, Reporter
from snapvault.foundation.ids import PackId
from snapvault.operations.results import CheckReport, Finding
from snapvault.repository.chain import EVIDENCE, REGISTER
from snapvault.repository.keysets import read_config, verify_keyset
from snapvault.repository.store import fetch, fetch_rescue, reread

BLOCK = 8 << 20  # bytes of a large object that are hashed at once


def scrub(url: str, *, storage_options: Mapping[str, Any] | None = None, control: Control | None = None) -> CheckReport:
    """Read every object of a repository and verify what can be verified without a key.

    Also whether packs that index objects name are there in their full size, whether named predecessors of snapshots are
    there, and the rescue files against the newest keyset.  RepositoryNotFound, StoreUnavailable, StoreDenied.
    """
    backend = controlled(open_backend(url, storage_options), control)
    try:
        return Scrub(backend, Reporter("check", control)).run()
    finally:
        backend.close()


class Scrub:
    """One pass over everything that a store holds."""

    def __init__(self, backend: Backend, reporter: Reporter) -> None:
        self._backend, self._reporter = backend, reporter
        self.sizes = {o.name: o.size for o in backend.list()}
        self._findings: list[Finding] = []
        self._rescue: dict[str, bytes] = {}
        self._read = self._packs = self._snapshots = 0

    def run(self) -> CheckReport:
        """Read everything; the errors of ``scrub``."""
        started = time.monotonic()
        self._config, self._digest = read_config(self._backend)
        total = sum(self.sizes.values())
        # Keysets first, in order: the newest says which rescue files are right.
        order = sorted(self.sizes, key=lambda n: (not n.startswith(names.KEYSETS), keyset_number(n), n))
        for done, name in enumerate(order):
            self._reporter.check()
            self._reporter.tick("scrub", done, len(order), self._read, total, name)
            try:
                self._object(name)
            except NotFound:
                if not name.startswith((names.SLOTS, names.LOCAL)):  # there, objects come and go while others work
                    self._find(f"{name} was listed but is gone", name)
            except Damaged as e:
                self._find(f"{name}: {e.message}", name)
        for name in self._rescue:
            if name not in self.sizes:
                self._find(f"{name} is missing", name)
        packs = sum(s for n, s in self.sizes.items() if n.startswith(names.PACKS))
        share = 1.0 if packs else 0.0
        return CheckReport(
            "scrub", tuple(self._findings), (), len(order), self._snapshots, 0, self._packs, self._packs, self._read,
            share, share, time.monotonic() - started,
        )  # fmt: skip

    def _find(self, message: str, name: str, *, harmless: bool = False) -> None:
        self._findings.append(Finding(message, (name,), harmless=harmless))

    def _object(self, name: str) -> None:
        wanted = names.content_digest(name)
        if name.startswith(names.PACKS):
            if wanted is None:
                raise FormatError("this is no name of a pack")
            self._pack(name, wanted)
            return
        self._read += self.sizes[name]
        if name in self._rescue:
            fetch_rescue(self._backend, name, self.sizes[name], self._rescue[name])
            return
        data = fetch(self._backend, name, self.sizes[name])
        if name.startswith(names.RESCUE):
            return
        if wanted is not None and blake3(data).digest() != wanted:
            raise FormatError("its bytes are not those that its name states")
        if not name.startswith(_FRAMED):
            self._find(f"{name} is no object of a repository", name, harmless=True)
            return
        check_frame(data)
        self._look_inside(name, data)

    def _pack(self, name: str, wanted: bytes) -> None:
        self._read += self.sizes[name]
        self._packs += 1
        reread(lambda: self._hash(name, wanted), tries=2)

    def _hash(self, name: str, wanted: bytes) -> None:
        digest, size = blake3(), self.sizes[name]
        for start in range(0, size, BLOCK):
            self._reporter.check()
            digest.update(self._backend.get(name, start, min(BLOCK, size - start)))
        if digest.digest() != wanted:
            raise FormatError("its bytes are not those that its name states")

    def _look_inside(self, name: str, data: bytes) -> None:
        """What is in clear: under which name it belongs, and which others it names."""
        if name.startswith(names.KEYSETS):
            number = names.keyset_number(name)
            self._rescue = dict(verify_keyset(data, number, self._config, self._digest).rescue)
        elif name.startswith(names.INDEX):
            for pack, size, _ in decode_index(decode_signed(Kind.INDEX, data).payload).packs:
                self._named(names.pack(PackId(pack)), name, size)
        elif name.startswith(names.SNAPSHOTS):
            names.session_id(name, names.SNAPSHOTS)
            self._snapshots += 1
            record = decode_snapshot(decode_signed(Kind.SNAPSHOT, data).payload)
            _belongs(name, names.snapshot(record.sid))
            for sid, _ in record.prevs:
                if names.tombstone(sid) in self.sizes:
                    continue  # at a copy it need not have come
                self._named(names.snapshot(sid), name, None)
        elif name.startswith(names.SESSIONS):
            _belongs(name, names.session(decode_session(decode_signed(Kind.SESSION, data).payload).head.sid))
        elif name.startswith(names.SLOTS):
            _belongs(name.rpartition("/")[0], names.slot(decode_slot(data).holder, b"").rstrip("/"))
        elif name.startswith(names.TOMBSTONES):
            _belongs(name, names.tombstone(decode_tombstone(decode_signed(Kind.TOMBSTONE, data).payload).sid))
        elif series := next((s for s in (REGISTER, EVIDENCE) if name.startswith(s.prefix)), None):
            for prev in decode_chain(decode_signed(series.kind, data).payload).prevs:
                self._named(series.prefix + prev.hex(), name, None)
        elif name.startswith(names.GC):
            _belongs(name, names.GC + decode_gc(decode_signed(Kind.GC, data).payload).sid)

    def _named(self, wanted: str, by: str, size: int | None) -> None:
        if wanted not in self.sizes and not self._came_meanwhile(wanted):
            self._find(f"{wanted} is missing: {by} names it", wanted)
        elif size is not None and self.sizes[wanted] != size:
            self._find(f"{wanted} has {self.sizes[wanted]} bytes instead of {size}", wanted)

    def _came_meanwhile(self, name: str) -> bool:
        """Whether somebody put it after the listing had passed its place."""
        try:
            self.sizes[name] = self._backend.head(name).size
        except NotFound:
            return False
        return True


_FRAMED = (
    names.CONFIG, names.KEYSETS, names.SLOTS, names.SESSIONS, names.INDEX, names.SNAPSHOTS, names.NOTES, names.LOCAL,
    names.ATTESTATIONS, names.EVIDENCE, names.REGISTER,
)  # fmt: skip


def _belongs(name: str, wanted: str) -> None:
    """FormatError if an object stands under another name than it states."""
    if name != wanted:
        raise FormatError(f"it belongs under {wanted}")


def keyset_number(name: str) -> int:
    """0: it is no keyset."""
    tail = name.removeprefix(names.KEYSETS)
    return int(tail) if name.startswith(names.KEYSETS) and tail.isascii() and tail.isdigit() else 0
