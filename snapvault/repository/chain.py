"""Chains: signed records, sealed to whoever may read, each naming those before it (docs/format/chain.md).

Two authors who did not see one another's record make two ends; who comes next names both.  Nothing is ever removed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from blake3 import blake3

from snapvault.backend.own import holds
from snapvault.backend.protocol import Exists
from snapvault.backend.wrapper import settle
from snapvault.crypto.kdf import context_digest
from snapvault.format import names
from snapvault.format.chain import ChainRecord, decode_chain, salted, unsalted
from snapvault.format.keyset import Role
from snapvault.format.signed import Signed, decode_signed
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId
from snapvault.repository.keyring import Keyring
from snapvault.repository.sealing import open_part, seal_part
from snapvault.repository.store import Store
from snapvault.repository.trust import LABELS, Untrusted, sign, signed_by


@dataclass(frozen=True, slots=True)
class Series:
    """Records of one kind."""

    kind: int
    prefix: str
    roles: tuple[str, ...]  # whose records count


REGISTER = Series(Kind.REGISTER, names.REGISTER, Role.MAINTAINERS)
EVIDENCE = Series(Kind.EVIDENCE, names.EVIDENCE, Role.READERS)


@dataclass(frozen=True, slots=True)
class Link:
    """A verified record of a chain."""

    name: str
    digest: bytes  # BLAKE3 of the object
    record: ChainRecord
    holder: HolderId  # who signed
    signed: Signed
    content: bytes  # salt and body, to which the record commits

    @property
    def number(self) -> int:
        """Its place in the chain."""
        return self.record.number

    @property
    def body(self) -> bytes:
        """What it says."""
        return unsalted(self.content, self.record.commitment)


class End(NamedTuple):
    """A record that another one is to follow."""

    digest: bytes
    number: int


class Chain:
    """Reads and writes the records of one series in one repository."""

    def __init__(self, store: Store, ring: Keyring, series: Series) -> None:
        self._store, self._ring, self.series = store, ring, series

    def read(self, *, bodies: bool = True) -> tuple[list[Link], list[Damaged]]:
        """The records that count, each after those that it names, and what is wrong with others or missing.

        ``bodies``: with what they say, which may be more than memory should hold.  RoleRequired for holders that may
        not read; errors of the store.
        """
        sizes, found, problems = self.listed(), dict[bytes, Link](), list[Damaged]()
        for link in self.each(sizes):
            if isinstance(link, Link):
                found[link.digest] = link if bodies else replace(link, signed=Signed(b"", ()), content=b"")
            else:
                problems.append(link)
        counted = self._counted(found, problems)
        for link in counted:
            for name in (self._name(prev) for prev in link.record.prevs):
                if name not in sizes:
                    problems.append(Damaged(f"{name} is missing: {link.name} follows it", affected=[name]))
        return sorted(counted, key=_order), problems

    def listed(self) -> dict[str, int]:
        """Names and sizes of all records; RoleRequired for holders that may not read."""
        self._ring.require_role(Role.READERS, f"open the {self._label}")
        return {o.name: o.size for o in self._store.backend.list(self.series.prefix)}

    def each(self, sizes: Mapping[str, int]) -> Iterator[Link | Damaged]:
        """These records one by one, so that not all need be held; whether they count is not yet known."""
        for name, data in zip(sizes, self._store.each(list(sizes), sizes), strict=True):
            try:
                if isinstance(data, Damaged):
                    raise data
                yield self._open(name, data)
            except Damaged as e:
                yield type(e)(f"{name} is ignored: {e.message.removeprefix(f'{name}: ')}", affected=[name])

    def append(self, body: bytes, after: Iterable[Link | End]) -> Link:
        """Put one more record at these ends of the chain; durable when this returns.  RoleRequired."""
        self._ring.require_role(self.series.roles, f"write the {self._label}")
        before, epoch = list(after), self._ring.current.epochs[-1].number
        content, commitment = salted(body)
        sealed = seal_part(self._ring.seeds[epoch], self._label, self._context(epoch), content)
        record = ChainRecord(
            self._ring.config_digest, epoch, 1 + max((link.number for link in before), default=0), now_ns(),
            tuple(sorted(link.digest for link in before)), commitment, blake3(sealed).digest(),
        )  # fmt: skip
        own = self._ring.signing
        data = sign(self.series.kind, record.encode(), own.id, own.signer, sealed)
        digest = blake3(data).digest()
        name = self._name(digest)
        settle(self._store.backend, (names.KEYSETS, self.series.prefix))  # what this names may be another's
        try:
            self._store.backend.put_if_absent(name, [data])
        except Exists:  # a put whose reply was lost, or that was left half done
            if not holds(self._store.backend, name, [data]):
                self._store.backend.put(name, [data])
        return Link(name, digest, record, own.id, decode_signed(self.series.kind, data), content)

    def take_over(self, author: HolderId, said: bytes | None = None) -> None:
        """Say as the owner what this holder, who is to count no more, said last; what it followed stays vouched for.

        ``said``: instead of the same once more.
        """
        for end in ends(self.read(bodies=said is None)[0]):
            if end.holder == author:
                self.append(end.body if said is None else said, [end])

    @property
    def _label(self) -> str:
        return LABELS[self.series.kind]

    def _name(self, digest: bytes) -> str:
        return self.series.prefix + digest.hex()

    def _context(self, epoch: int) -> bytes:
        return context_digest(self._ring.config_digest, epoch.to_bytes(8, "little"))

    def _open(self, name: str, data: bytes) -> Link:
        """A record that somebody signed who may, or might once; Untrusted, FormatError."""
        digest, signed = blake3(data).digest(), decode_signed(self.series.kind, data)
        record = decode_chain(signed.payload)
        if record.config != self._ring.config_digest or name != self._name(digest):
            raise Untrusted("it does not belong here")
        if record.sealed_digest != blake3(signed.sealed).digest():
            raise Untrusted("its sealed part was replaced")
        holder = self._author(signed)
        if holder is None:
            raise Untrusted("it is not signed by a holder who may write it")
        seed = self._ring.seeds.get(record.epoch)
        if seed is None:
            raise Damaged("it is sealed to no key that is at hand")
        content = bytes(open_part(seed, self._label, self._context(record.epoch), signed.sealed))
        unsalted(content, record.commitment)
        return Link(name, digest, record, holder, signed, content)

    def _author(self, signed: Signed) -> HolderId | None:
        keyset, roles, stated = self._ring.current, self.series.roles, {s.holder for s in signed.signatures}
        keys = {h.id: h.sign for h in keyset.holders if h.role in roles}
        keys |= {r.holder: r.sign for r in keyset.revocations if r.role in roles}
        for holder in sorted(keys, key=lambda h: h not in stated):
            if signed_by(self.series.kind, signed, keys[holder]):
                return holder
        return None

    def _counted(self, found: Mapping[bytes, Link], problems: list[Damaged]) -> list[Link]:
        """What holders of today signed, and what that follows; a removed one's other records may be new inventions."""
        todo = [link for link in found.values() if link.holder not in self._ring.removed]
        counted = {link.digest: link for link in todo}
        while todo:
            for prev in todo.pop().record.prevs:
                if prev in found and prev not in counted:
                    counted[prev] = found[prev]
                    todo.append(found[prev])
        for link in (link for digest, link in found.items() if digest not in counted):
            who = self._ring.name_of(link.holder)
            problems.append(
                Untrusted(f"{link.name} is ignored: the key of {who}, who signed it, was removed", affected=[link.name])
            )
        return list(counted.values())


def ends(links: Iterable[Link]) -> list[Link]:
    """Those that no other one follows."""
    known = list(links)
    followed = {prev for link in known for prev in link.record.prevs}
    return [link for link in known if link.digest not in followed]


def rolled_back(pinned: Mapping[str, int], links: Iterable[Link], series: Series = REGISTER) -> list[Damaged]:
    """Records that this client saw at the end of a chain (digest in hex -> number), and that are gone."""
    there = {link.digest.hex() for link in links}
    what, hint = "record {} of the evidence", "'snapvault check --repair-from SITE' brings it back if a copy has it"
    if series is REGISTER:
        what = "revision {} of the register"
        hint += "; if it is lost for good, import once with an empty state directory"
    return [
        Untrusted(
            f"{what.format(number)}, which this client saw here before, is gone or damaged",
            hint=hint,
            affected=[series.prefix + digest],
        )
        for digest, number in pinned.items()
        if digest not in there
    ]


def _order(link: Link) -> tuple[int, int, bytes]:
    return link.record.number, link.record.time, link.digest
