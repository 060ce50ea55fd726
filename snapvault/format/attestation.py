"""``attestations/<holder>/<time>-<random>``: what a site holds, signed (docs/format/attestation.md)."""

from dataclasses import dataclass

from snapvault.format.names import checked_session_id
from snapvault.format.snapshot import Objects
from snapvault.format.wire import FormatError, pack, shaped, sized, typed, unpack
from snapvault.foundation.ids import SessionId

PRESENT, HASHED = "present", "hashed"
NAMES_MAX = 100  # missing or damaged objects that are named; the others are counted


@dataclass(frozen=True, slots=True)
class AttestationRecord:
    """An inventory of everything but ``local/`` and ``attestations/``."""

    config: bytes
    site: str  # what the signer calls the place
    level: str  # PRESENT: listed; HASHED: every object was read and is what its name or digest says
    time: int  # nanoseconds, UTC, when the listing began
    objects: Objects  # how many, their bytes, and the Merkle root over names and sizes
    snapshots: tuple[SessionId, ...]  # commit slots whose data is all there, and, where hashed, whole
    bad: int  # objects that are missing or damaged
    names: tuple[str, ...]  # of the first of them
    head: bytes  # BLAKE3 of this signer's attestation before; zeros if there is none

    def encode(self) -> bytes:
        """The payload to sign."""
        o = self.objects
        sids = b"".join(bytes.fromhex(sid) for sid in self.snapshots)
        return pack(
            [
                self.config, self.site, self.level, self.time, [o.count, o.size, o.root], sids, self.bad, self.names,
                self.head,
            ]
        )  # fmt: skip


def decode_attestation(payload: bytes) -> AttestationRecord:
    """FormatError if malformed."""

    def build() -> AttestationRecord:
        config, site, level, time, objects, sids, bad, names, head = unpack(payload)
        count, size, root = objects
        if level not in (PRESENT, HASHED) or len(typed(sids, bytes, "snapshots")) % 16:
            raise FormatError("an attestation is malformed")
        return AttestationRecord(
            sized(config, 32, "config"),
            typed(site, str, "site"),
            level,
            typed(time, int, "time"),
            Objects(typed(count, int, "count"), typed(size, int, "size"), sized(root, 32, "root")),
            tuple(checked_session_id(sids[i : i + 16].hex()) for i in range(0, len(sids), 16)),
            typed(bad, int, "count"),
            tuple(typed(n, str, "name") for n in names),
            sized(head, 32, "head"),
        )

    return shaped(build, "attestation")
