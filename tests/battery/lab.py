"""A small repository with every kind of object, to be damaged in every way, and the judge of what comes of it.

The judge knows what went in.  Whatever is done to the store: each snapshot restores to the bytes that went in, or the
restore names exactly the paths that are lost; ``check`` with all data names the same paths; nothing is lost silently.
"""

import itertools
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import snapvault
from snapvault.assurance.declaration import declare
from snapvault.assurance.register import import_register
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.evidence import encode_evidence
from snapvault.format.local import GcRecord, NoteDetails, encode_heartbeat
from snapvault.format.session import GC
from snapvault.format.tree import Content, Node, NodeKind
from snapvault.format.wire import Kind
from snapvault.foundation.ids import HolderId, PackId, SessionId
from snapvault.repository import create, packer, packs, session
from snapvault.repository.repository import Vault
from snapvault.repository.trust import sign

SEED = bytes(range(1, 33))
CHUNKING = snapvault.Chunking(256, 512, 2048)
ROOT = "/lab"  # where the source stands in every snapshot
Tree = dict[str, bytes | None]  # path below the root -> bytes of a file or target of a link; None: a folder
Objects = dict[str, bytes]

_numbers = itertools.count()


@contextmanager
def small_parts() -> Iterator[None]:
    """While this is open, new repositories cut segments and packs early and pad them little.

    Sessions that see others tell them of every pack at once.
    """
    with (
        mock.patch.object(create, "SEGMENT_SIZE", 2048),
        mock.patch.object(create, "PACK_SIZE", 8192),
        mock.patch.object(packs, "FULL_UNIT", 1024),
        mock.patch.object(packs, "LAST_FLOOR", 1024),
        mock.patch.object(packer, "SHARED_SECONDS", 0.0),
    ):
        yield


def read_tree(root: Path) -> Tree:
    """What is in a folder."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            at = str(path.relative_to(root))
            if path.is_symlink():
                found[at] = os.fsencode(os.readlink(path))
            else:
                found[at] = None if path.is_dir() else path.read_bytes()
    return found


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in memory: thousands of small restores go there."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="snapvault-") as folder:
        yield Path(folder)


def memory() -> MemoryBackend:
    """A fresh place."""
    return MemoryBackend(f"lab-{next(_numbers)}")


@dataclass
class Lab:
    """A repository in memory, who may open it, and what was put into it."""

    store: MemoryBackend
    home: Path
    trees: dict[str, Tree] = field(default_factory=dict)  # snapshots that are not forgotten
    forgotten: set[str] = field(default_factory=set)
    recovery: str = ""
    state: Path | None = None

    @property
    def url(self) -> str:
        return self.store.url

    def open(self, keys: bytes | None = None, *, state: Path | None = None) -> snapvault.Repository:
        """Open it, as the owner unless another key is given."""
        return snapvault.open(self.url, keys=lambda: keys or SEED, state=state)

    def open_recovery(self) -> snapvault.Repository:
        return snapvault.open(self.url, keys=lambda: self.recovery.encode())

    def backup(self, repo: snapvault.Repository, tree: Tree, **options: str) -> str:
        """Save a tree; the snapshot's id.  It is owed from now on."""
        with repo.writer(options.pop("dataset", "lab"), host="here", **options) as writer:
            for path, data in sorted(tree.items()):
                if data is not None:
                    with writer.open(f"{ROOT}/{path}") as file:
                        file.write(data)
        assert writer.result is not None
        self.trees[writer.result.snapshot] = dict(tree)
        return writer.result.snapshot

    def copy(self, objects: Objects | None = None) -> "Lab":
        """The same repository elsewhere, with these objects."""
        other = Lab(memory(), self.home, dict(self.trees), set(self.forgotten), self.recovery)
        other.store.objects.update(self.store.objects if objects is None else objects)
        if self.state is not None:
            other.state = self.home / f"state-{next(_numbers)}"
            for pins in self.state.rglob("pins.json"):
                there = other.state / pins.relative_to(self.state)
                there.parent.mkdir(parents=True)
                there.write_text(pins.read_text().replace(self.url, other.url))
        return other

    def drop(self) -> None:
        """Give back what a copy took."""
        self.store.objects.clear()
        if self.state is not None:
            shutil.rmtree(self.state, ignore_errors=True)


# -- what is in it ----------------------------------------------------------------------------------------------------


def make_tree(seed: int) -> Tree:
    """Files of one and of many chunks in nested folders, an empty one and two alike."""
    content = random.Random(seed)
    return {
        "a": None, "a/b": None, "c": None,
        "empty": b"", "small": b"hello", "large": content.randbytes(9_000), "a/text": b"line\n" * 300,
        "a/b/deep": content.randbytes(3_000), "c/twin": b"twin" * 100, "c/other twin": b"twin" * 100,
    }  # fmt: skip


def edit(tree: Tree, seed: int) -> Tree:
    """The tree a day later."""
    content = random.Random(seed)
    large = bytearray(tree["large"] or b"")
    large[4000:4100] = content.randbytes(100)
    return {**tree, "large": bytes(large), f"c/new {seed}": content.randbytes(700)}


def build(home: Path) -> Lab:
    """The lab: four snapshots by two holders, in two domains and two epochs, one forgotten; every kind of object."""
    with small_parts():
        lab = Lab(memory(), home, state=home / "state")
        made = snapvault.init(lab.url, keys=lambda: SEED, chunking=CHUNKING)
        lab.recovery = made.recovery_key
        made.repository.close()
        repo = lab.open(state=lab.state)
        tree = make_tree(1)
        lab.backup(repo, tree)
        tree = edit(tree, 2)
        gone = lab.backup(repo, tree)
        snapvault.forget_snapshots(repo, [gone])
        del lab.trees[gone]
        lab.forgotten.add(gone)
        snapvault.rotate(repo)
        snapvault.add_key(repo, "reader", "reader", file=home / "reader.json")
        snapvault.add_key(repo, "writer", "writer", file=home / "writer.json")
        lab.backup(repo, edit(tree, 3))
        with lab.open((home / "writer.json").read_bytes()) as writer:
            lab.backup(writer, make_tree(9), dataset="other")
        snapvault.check(repo, read_data=True)  # writes down what it verified
        held = repo.snapshot(next(iter(lab.trees)))
        repo.vault.notes.add(held.id, held.slot.holder, NoteDetails(hold=True))
        for datasets in ({"lab": {}}, {"lab": {}, "other": {"owner": "Ada"}}):
            import_register(repo, declare({"schema": 1, "datasets": datasets}, "the lab"))
        first = repo.vault.evidence.append(encode_evidence([]), [])
        last = repo.vault.evidence.append(encode_evidence([]), [first])
        repo.vault.pins.site.evidence = {last.digest.hex(): last.number}
        put_gc(repo.vault, [])
        lab.store.put(names.heartbeat(SessionId("0" * 32), 1), [encode_heartbeat(SessionId("0" * 32), 1)])
        snapvault.check(repo)
        repo.snapshots()
        repo.close()
    return lab


def gc_session(vault: Vault) -> session.Session:
    """A session as a GC opens it."""
    numbered = SimpleNamespace(token_hex=lambda n: names.GC_PREFIX + secrets.token_hex(n))
    with mock.patch.object(session, "random", numbered):
        return session.Session(
            vault.store, vault.ring, vault.ring.domains[vault.ring.current.domains[0].id], purpose=GC
        )


def put_gc(vault: Vault, condemned: list[PackId]) -> str:
    """A GC that condemned these packs and was given up; its session id."""
    gc = gc_session(vault)
    keys = vault.ring.signing
    vault.backend.put(names.session(gc.sid), [gc.header])
    record = GcRecord(vault.ring.config_digest, gc.sid, tuple(condemned))
    vault.backend.put(names.GC + gc.sid, [sign(Kind.GC, record.encode(), keys.id, keys.signer)])
    gc.abort()
    return gc.sid


# -- the judge --------------------------------------------------------------------------------------------------------

Lost = set[tuple[str, str]]  # snapshot and path


@dataclass
class Verdict:
    """What was seen of a store that something was done to."""

    findings: list[str] = field(default_factory=list)  # of check with all data: the problems
    structure: list[str] = field(default_factory=list)  # of check without
    scrubbed: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # objects that a check or a scrub named
    lost: Lost = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # snapshots that are owed and not listed
    refused: str = ""  # why it could not be opened


def judge(lab: Lab, scratch: Path, keys: bytes | None = None, *, structure: bool = True) -> Verdict:
    """Open, check, scrub and restore everything; AssertionError where a promise is broken."""
    verdict = Verdict()
    _scrub(lab, verdict)
    try:
        repo = lab.open(keys, state=lab.state)
    except snapvault.SnapvaultError as e:
        assert e.code != "error", e
        verdict.refused = e.code
        verdict.named |= set(e.affected)
        return verdict
    with repo:
        if structure:
            verdict.structure = [f.message for f in snapvault.check(repo).problems]
        report = snapvault.check(repo, read_data=True)
        verdict.findings = [f.message for f in report.problems]
        for finding in report.findings:
            verdict.named |= set(finding.objects)
        listed = {s.id: s for s in repo.snapshots()}
        verdict.gone = set(lab.trees) - set(listed)
        assert set(listed) <= set(lab.trees) | lab.forgotten, "a snapshot appeared that nobody made"
        with lab.open(keys, state=lab.state) as fresh:  # knows nothing of what the check saw
            restored = restore_all(lab, fresh, listed, scratch, verdict)
        checked = {(p.snapshot, p.path) for p in report.lost}
        only = sorted(checked - restored), sorted(restored - checked)
        assert checked == restored, f"called lost by the check alone: {only[0]}, by the restore alone: {only[1]}"
        assert not report.lost or report.status == "damaged"
    return verdict


def _scrub(lab: Lab, verdict: Verdict) -> None:
    try:
        report = snapvault.scrub(lab.url)
    except (snapvault.Damaged, snapvault.RepositoryNotFound) as e:
        verdict.scrubbed = [e.message]
        verdict.named |= set(e.affected) or {names.CONFIG}
        return
    verdict.scrubbed = [f.message for f in report.problems]
    for finding in report.problems:
        verdict.named |= set(finding.objects)


def restore_all(
    lab: Lab, repo: snapvault.Repository, listed: Mapping[str, snapvault.Snapshot], scratch: Path, verdict: Verdict
) -> Lost:
    """Restore every snapshot that is owed."""
    lost: Lost = set()
    for sid, tree in lab.trees.items():
        if sid not in listed:
            _restore_refused(lab, repo, sid, scratch)
        else:
            lost |= restore_one(repo, sid, tree, scratch)
    verdict.lost = lost
    return lost


def _restore_refused(lab: Lab, repo: snapvault.Repository, sid: str, scratch: Path) -> None:
    """A snapshot whose record is damaged or gone: said so, and nothing is written."""
    try:
        snapvault.restore(repo, sid, scratch / "out")
    except snapvault.SnapvaultError as e:
        wanted = 20 if lab.state is not None else 2  # without pins it is just a name that nobody knows
        assert e.exit_code == wanted, f"the restore of a lost snapshot says {e!r}"
    else:
        raise AssertionError("a snapshot that is not listed was restored")


def restore_one(repo: snapvault.Repository, ref: str, tree: Tree, scratch: Path, root: str = ROOT) -> Lost:
    """Restore a snapshot: what came out is right, what did not come is named.  The lost paths, absolute."""
    target = scratch / f"out-{next(_numbers)}"
    try:
        try:
            snapshot = repo.snapshot(ref)
            result = snapvault.restore(repo, snapshot, target)
        except snapvault.Damaged:
            return {(ref, "/")}
        came = read_tree(Path(f"{target}{root}"))
        lost = {"/" + i.path.lstrip("/") for i in result.lost}
        assert not result.issues, result.issues
        assert not lost or result.status == "damaged"
        wrong = [p for p, data in came.items() if p not in tree or tree[p] != data]
        assert not wrong, f"wrong bytes were acknowledged: {snapshot} {wrong}"
        for path, data in tree.items():
            above = {f"{root}/{path}", *(f"{root}/{p}" for p in map(str, Path(path).parents) if p != ".")}
            above |= {root, *map(str, Path(root).parents)}
            assert (path in came) or above & lost, f"{path} is lost and not named in {lost}"
            assert path not in came or data is None or f"{root}/{path}" not in lost, f"{path} came and is called lost"
        return {(snapshot.id, p) for p in lost}
    finally:
        shutil.rmtree(target, ignore_errors=True)


def holder_of(lab: Lab, name: str) -> HolderId:
    """The holder of this name."""
    with lab.open() as repo:
        return next(h.id for h in repo.vault.ring.current.holders if h.name == name)


def file_node(name: bytes, size: int, content: Content) -> Node:
    """A file in a tree that is made by hand."""
    return Node(name, NodeKind.FILE, 0o644, 0, 0, 0, size=size, content=content)
