"""rescue-1.py, as it lies in a repository, restores what snapvault restores, and never with snapvault's help."""

import hashlib
import itertools
import os
import random
import shutil
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
from blake3 import blake3
from trees import build_torture_tree, referee

import snapvault
from snapvault.compression import compress
from snapvault.crypto.envelope import seal
from snapvault.format import names
from snapvault.format.pack import Segment
from snapvault.format.session import WRITER
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import SnapshotDetails
from snapvault.format.tree import BlobType, Content
from snapvault.format.wire import HEADER_SIZE, Kind, pack
from snapvault.operations.keys import add_key, remove_key, rotate
from snapvault.repository.packs import TRAILER_SIZE, encode_segment, pack_ending, pack_prefix
from snapvault.repository.session import Session
from snapvault.repository.writer import BlobWriter

PASSWORD = "correct horse"

# Runs the program with imports limited to what RESCUE-1.md names, so that a slip does not go unseen.
GUARD = """
import runpy, sys
class Guard:
    allowed = set(sys.stdlib_module_names) | {"cryptography", "zstandard", "blake3", "msgpack", "cffi", "_cffi_backend"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.allowed:
            raise SystemExit(f"the rescue program imports {name}")
sys.meta_path.insert(0, Guard())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="rescue")  # all imports, as root: the interpreter may lie in root's home
import grp, locale, os, pwd, resource, shutil, cryptography.hazmat.backends.openssl.backend
if (nobody := sys.argv.pop()) != "root":
    os.setgroups([])
    os.setresgid(*[int(nobody)] * 3)
    os.setresuid(*[int(nobody)] * 3)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Vaulted:
    """A repository on disk, and its recovery key in a file."""

    path: Path
    key: Path
    repo: snapvault.Repository

    def copy(self, to: Path, *, without: tuple[str, ...] = ()) -> Path:
        shutil.copytree(self.path, to)
        for name in without:
            shutil.rmtree(to / name)
        return to


def rescue(
    repository: Path, *arguments: str | Path, password: str = "", user: str = "root"
) -> subprocess.CompletedProcess[str]:
    """Run the repository's own program; without a terminal getpass reads the password from standard input."""
    argv = [sys.executable, "-I", "-W", "ignore", "-c", GUARD, str(repository / "rescue-1.py"), str(repository)]
    argv += [*map(str, arguments), user]
    return subprocess.run(
        argv, input=password + "\n", capture_output=True, text=True, check=False, start_new_session=True, timeout=120,
        errors="surrogateescape",
    )  # fmt: skip


def make(folder: Path) -> Vaulted:
    made = snapvault.init(str(folder / "repo"), password=PASSWORD)
    key = folder / "recovery key"
    key.write_text(made.recovery_key.lower())  # typed by hand
    return Vaulted(folder / "repo", key, made.repository)


def restored(target: Path, source: Path) -> Path:
    return Path(str(target) + str(source))


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vaulted, Path]:
    folder = tmp_path_factory.mktemp("torture")
    source = folder / "source"
    build_torture_tree(source, entries=3000, big_sparse=1 << 30)
    vault = make(folder)
    assert snapvault.backup(vault.repo, source, dataset="torture").status == "ok"
    return vault, source


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vaulted, Path]:
    """Files in several segments and packs, so that damage hits few of them."""
    folder = tmp_path_factory.mktemp("small")
    source = folder / "source"
    source.mkdir()
    for i in range(36):
        (source / f"{i:02}").write_bytes(hashlib.shake_128(bytes([i])).digest((1 << 20) + 70_000))
    vault = make(folder)
    snapvault.backup(vault.repo, source, dataset="small")
    return vault, source


@pytest.fixture(scope="module")
def tainted(tmp_path_factory: pytest.TempPathFactory) -> Vaulted:
    """Takes the hostile snapshots; each is named by its id."""
    return make(tmp_path_factory.mktemp("tainted"))


def packs(repository: Path) -> list[Path]:
    return sorted(repository.glob("packs/*/*"), key=lambda p: p.stat().st_size)


def damage(path: Path, at: int, length: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for i in range(at, at + length):
        data[i] ^= 0x55
    path.write_bytes(data)


def lost_paths(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line[5:].split(": ")[0] for line in done.stderr.splitlines() if line.startswith("LOST ")}


# ---- everything comes back -------------------------------------------------------------------------------------------


def test_everything_comes_back_by_password(torture: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, source = torture
    done = rescue(vault.path, "latest", tmp_path / "out", password=PASSWORD)
    assert (done.returncode, lost_paths(done)) == (0, set()), done.stderr
    assert referee(source, restored(tmp_path / "out", source)) == []


def test_recovery_key_needs_neither_slots_nor_keysets_nor_index(torture: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, source = torture
    bare = vault.copy(tmp_path / "bare", without=("keyset", "slots", "index", "sessions", "local"))
    done = rescue(bare, "torture@latest", tmp_path / "out", "--key-file", vault.key)
    assert done.returncode == 0, done.stderr
    assert referee(source, restored(tmp_path / "out", source)) == []
    snapvault.restore(vault.repo, "latest", tmp_path / "by snapvault")
    assert referee(restored(tmp_path / "by snapvault", source), restored(tmp_path / "out", source)) == []


def test_huge_folders_and_files_have_lists_of_lists(tmp_path: Path) -> None:
    vault = make(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "long").write_bytes(random.Random(7).randbytes(40 << 20))
    for i in range(9000):
        (source / f"{i:05}").touch()
    snapvault.backup(vault.repo, source, dataset="d")
    node = vault.repo.snapshot("latest").entry(f"{source}/long").node
    assert node.content.depth > 0  # else this would test nothing
    done = rescue(vault.path, "latest", tmp_path / "out", "--key-file", vault.key)
    assert done.returncode == 0, done.stderr
    assert referee(source, restored(tmp_path / "out", source)) == []


def test_snapshots_of_all_epochs_open(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault = make(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    for word in ("first", "second"):
        (source / "file").write_text(word)
        snapvault.backup(vault.repo, source, dataset="d")
        rotate(vault.repo)
        vault.repo = vault.repo.reopen(password=PASSWORD)
    listed = rescue(vault.path, "--list", password=PASSWORD).stdout.splitlines()
    for i, (line, word) in enumerate(zip(listed, ("first", "second"), strict=True)):
        for how, options in (("password", ()), ("recovery", ("--key-file", vault.key))):
            out = tmp_path / f"{how} {i}"
            assert rescue(vault.path, line[:8], out, *options, password=PASSWORD).returncode == 0
            assert (restored(out, source) / "file").read_text() == word


def test_a_readers_key_file_opens_and_a_writers_does_not(tmp_path: Path) -> None:
    vault = make(tmp_path)
    (tmp_path / "file").write_text("content")
    snapvault.backup(vault.repo, tmp_path / "file", dataset="d")
    add_key(vault.repo, "reader", "auditor", file=tmp_path / "reader.json")
    vault.repo = vault.repo.reopen(password=PASSWORD)
    add_key(vault.repo, "writer", "client", file=tmp_path / "writer.json")
    out = tmp_path / "out"
    assert rescue(vault.path, "latest", out, "--key-file", tmp_path / "reader.json").returncode == 0
    assert (restored(out, tmp_path) / "file").read_text() == "content"
    refused = rescue(vault.path, "latest", tmp_path / "none", "--key-file", tmp_path / "writer.json")
    assert refused.returncode == 12 and not (tmp_path / "none").exists()


def test_without_root_owners_are_counted(tmp_path: Path) -> None:
    vault = make(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    os.chown(source / "file", 12345, 12345)
    snapvault.backup(vault.repo, source, dataset="d")
    everyone = vault.copy(tmp_path / "copy")
    for path in (tmp_path, *tmp_path.parents[:2], vault.key, everyone, *everyone.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    done = rescue(everyone, "latest", tmp_path / "out", "--key-file", vault.key, user="65534")
    assert done.returncode == 0, done.stderr
    assert "need root" in done.stderr
    assert (restored(tmp_path / "out", source) / "file").read_text() == "content"


def test_the_target_does_not_pass_on_an_acl(torture: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, source = torture
    subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", str(tmp_path)], check=True)
    assert rescue(vault.path, "latest", tmp_path / "out", password=PASSWORD).returncode == 0
    assert referee(source, restored(tmp_path / "out", source)) == []


def test_a_full_disk_is_no_damage(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, _ = small
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], check=True)
    try:
        done = rescue(vault.path, "latest", tmp_path / "out", "--key-file", vault.key)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.returncode == 1 and "No space" in done.stderr and not lost_paths(done)


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_lost_paths_are_named_and_all_others_restored(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, source = small
    copy = vault.copy(tmp_path / "copy", without=("index",))
    pack_file = packs(copy)[-1]
    damage(pack_file, pack_file.stat().st_size // 2, 3)
    done = rescue(copy, "latest", tmp_path / "out", "--key-file", vault.key)
    assert done.returncode == 20
    lost = lost_paths(done)
    assert 1 <= len(lost) <= 5  # a flip lies in one segment, which holds parts of four or five files
    there = restored(tmp_path / "out", source)
    assert {f"{source}/{n}" for n in os.listdir(source)} - {f"{source}/{n}" for n in os.listdir(there)} == lost
    assert all((there / n).read_bytes() == (source / n).read_bytes() for n in os.listdir(there))
    with snapvault.open(str(vault.copy(tmp_path / "again")), password=PASSWORD) as other:
        damage(tmp_path / "again" / pack_file.relative_to(copy), pack_file.stat().st_size // 2, 3)
        agreed = snapvault.restore(other, "latest", tmp_path / "by snapvault").lost
    assert {i.path for i in agreed} == lost


def test_what_is_left_of_a_damaged_file_can_be_kept(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, source = small
    copy = vault.copy(tmp_path / "copy")
    pack_file = packs(copy)[-1]
    damage(pack_file, pack_file.stat().st_size // 2)
    done = rescue(copy, "latest", tmp_path / "out", "--key-file", vault.key, "--keep-damaged")
    assert done.returncode == 20 and lost_paths(done)
    there = restored(tmp_path / "out", source)
    assert sorted(os.listdir(there)) == sorted(os.listdir(source))
    for name in lost_paths(done):
        left, whole = ((p / Path(name).name).read_bytes() for p in (there, source))
        wrong = [i for i, (a, b) in enumerate(zip(left, whole, strict=True)) if a != b]
        assert 0 < len(wrong) <= 1_300_000 and not any(left[i] for i in wrong)  # one segment of zeros, no more


@pytest.mark.parametrize("where", ["trailer", "directory", "header"])
def test_the_index_helps_where_the_ends_of_a_pack_are_damaged(
    small: tuple[Vaulted, Path], tmp_path: Path, where: str
) -> None:
    vault, source = small
    copy = vault.copy(tmp_path / "copy")
    for pack_file in packs(copy):
        size = pack_file.stat().st_size
        damage(pack_file, {"trailer": size - 5, "directory": size - TRAILER_SIZE - 5, "header": 100}[where])
    done = rescue(copy, "latest", tmp_path / "out", "--key-file", vault.key)
    assert done.returncode == 0, done.stderr
    assert referee(source, restored(tmp_path / "out", source)) == []
    shutil.rmtree(copy / "index")
    assert rescue(copy, "latest", tmp_path / "none", "--key-file", vault.key).returncode == 20


def test_a_pack_that_is_gone_is_the_loss_of_its_files(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, _ = small
    copy = vault.copy(tmp_path / "copy")
    for pack_file in packs(copy):
        pack_file.unlink()
    done = rescue(copy, "latest", tmp_path / "out", "--key-file", vault.key)
    assert done.returncode == 20 and "/" in lost_paths(done)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_refused(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, _ = small
    (tmp_path / "mine").write_text("mine")
    assert rescue(vault.path, "latest", tmp_path, "--key-file", vault.key).returncode == 2
    assert os.listdir(tmp_path) == ["mine"]


def test_wrong_keys_and_places_are_named(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, _ = small
    assert rescue(vault.path, "latest", tmp_path / "o", password="wrong").returncode == 12
    text = vault.key.read_text()
    (tmp_path / "typo").write_text(text[:-3] + ("a" if text[-3] != "a" else "b") + text[-2:])
    typo = rescue(vault.path, "latest", tmp_path / "o", "--key-file", tmp_path / "typo")
    assert typo.returncode == 12 and "mistake" in typo.stderr
    (tmp_path / "other").mkdir()
    other = make(tmp_path / "other")
    foreign = rescue(vault.path, "latest", tmp_path / "o", "--key-file", other.key)
    assert foreign.returncode == 12 and "another repository" in foreign.stderr
    (tmp_path / "empty").mkdir()
    shutil.copy(vault.path / "rescue-1.py", tmp_path / "empty")
    assert rescue(tmp_path / "empty", "latest", tmp_path / "o", "--key-file", vault.key).returncode == 10
    assert not (tmp_path / "o").exists()


def test_latest_is_never_a_guess_between_datasets(tmp_path: Path) -> None:
    vault = make(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        snapvault.backup(vault.repo, tmp_path / name, dataset=name)
    assert rescue(vault.path, "latest", tmp_path / "out", "--key-file", vault.key).returncode == 2
    assert rescue(vault.path, "one@latest", tmp_path / "out", "--key-file", vault.key).returncode == 0
    assert (restored(tmp_path / "out", tmp_path) / "one").read_text() == "one"


def reframed(data: bytes, old: bytes, new: bytes) -> bytes:
    """An object in which bytes of its body were replaced, under a digest that fits."""
    assert old in data and len(old) == len(new)
    body = data[:-32].replace(old, new)
    return body + blake3(body).digest()


def test_a_forged_record_is_no_snapshot(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, _ = small
    copy = vault.copy(tmp_path / "copy")
    slot = next((copy / "snapshots").iterdir())
    data = slot.read_bytes()
    signature = decode_signed(Kind.SNAPSHOT, data).signatures[0].value
    slot.write_bytes(reframed(data, signature, bytes(64)))
    done = rescue(copy, "--list", "--key-file", vault.key)
    assert done.returncode == 20 and not done.stdout and "not signed" in done.stderr
    slot.write_bytes(data)
    slot.rename(slot.with_name("0" * 32))  # another session's slot
    assert not rescue(copy, "--list", "--key-file", vault.key).stdout


def test_another_owner_in_the_config_is_another_repository(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    vault, _ = small
    copy = vault.copy(tmp_path / "copy")
    owner = vault.repo.vault.ring.config.owner_sign
    (copy / "config").write_bytes(reframed((copy / "config").read_bytes(), owner, bytes(32)))
    assert rescue(copy, "--list", "--key-file", vault.key).returncode == 12


def test_what_a_removed_key_wrote_is_marked_and_never_latest(tmp_path: Path) -> None:
    vault = make(tmp_path)
    (tmp_path / "file").write_text("good")
    snapvault.backup(vault.repo, tmp_path / "file", dataset="d")
    add_key(vault.repo, "writer", "taken over", file=tmp_path / "writer.json")
    writer = snapvault.open(str(vault.path), keys=snapvault.KeyFile(tmp_path / "writer.json"))
    (tmp_path / "file").write_text("evil")
    snapvault.backup(writer, tmp_path / "file", dataset="d")
    vault.repo = vault.repo.reopen(password=PASSWORD)
    remove_key(vault.repo, "taken over")
    out = tmp_path / "out"
    assert rescue(vault.path, "latest", out, password=PASSWORD).returncode == 0
    assert (restored(out, tmp_path) / "file").read_text() == "good"
    assert "REMOVED: taken over" in rescue(vault.path, "--list", password=PASSWORD).stdout


# ---- a hostile snapshot, by a writer whose signature is good --------------------------------------------------------


def hostile(vault: Vaulted, trees: list[list[object]], root: Content | None = None, lists: Sequence[bytes] = ()) -> str:
    """Commit a snapshot with these TREE and LIST blobs as they are (by default the last tree is the root); its id."""
    inner = vault.repo.vault
    session = Session(inner.store, inner.ring, inner.ring.write_domain, purpose=WRITER)
    session.announce()
    blobs = BlobWriter(session, inner.loader.load(), inner.ring.write_domain)
    ids = [blobs.put(BlobType.TREE, pack(tree)) for tree in trees]
    for part in lists:
        blobs.put(BlobType.LIST, part)
    blobs.put(BlobType.DATA, b"")
    blobs.flush()
    session.commit(SnapshotDetails("hostile", "h", root or Content(0, ids[-1]), (b"/",), 5, 6), (), 1)
    return session.sid


def row(name: object, kind: int, content: object = b"", extra: object = None, size: int = 0) -> list[object]:
    return [name, kind, 0o755, 0, 0, 0, 0, 0, size, content, *([extra] if extra else [])]


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"../escaped", b"/tmp/escaped", b"nul\0", "text", 5, b"a/b"], ids=repr
)
def test_hostile_names_write_nothing(tainted: Vaulted, tmp_path: Path, name: object) -> None:
    sid = hostile(tainted, [[1, {}, {}, [row(name, 1)]]])
    done = rescue(tainted.path, sid, tmp_path / "out", "--key-file", tainted.key)
    assert done.returncode == 20
    assert os.listdir(tmp_path / "out") == [] and not (tmp_path / "escaped").exists()


def test_nothing_is_written_through_a_symlink(tainted: Vaulted, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inner: list[object] = [1, {}, {}, [row(b"pwned", 1)]]
    inner_id = tainted.repo.vault.ring.write_domain.blob_id(BlobType.TREE, pack(inner))
    link = row(b"a", 2, extra={1: os.fsencode(outside)})
    sid = hostile(tainted, [inner, [1, {}, {}, [link, row(b"a", 1, inner_id)]]])
    done = rescue(tainted.path, sid, tmp_path / "out", "--key-file", tainted.key)
    assert done.returncode == 20 and os.listdir(outside) == []


@pytest.mark.parametrize(
    "tree",
    [
        [1, {}, {}, [[b"a"]]],
        [1, [], 7, [row(b"a", 1)]],
        [9, {}, {}, [row(b"a", 1)]],
        [1, {}, {}, [row(b"a", 99)]],
        [1, {}, {}, [row(b"a", 0, [8000, bytes(32)])]],
        [1, {}, {}, [row(b"a", 0, b"short")]],
        [1, {}, {}, [row(b"a", 0, extra={5: bytes(7)}, size=9)]],
        [1, {}, {}, [row(b"a", 0, extra={5: b"\xff" * 16}, size=9)]],
        [1, {}, {}, [row(b"a", 1, extra={4: [1]})]],
        [1, {}, {}, [row(b"a", 0, size=1 << 63)]],
        [1, {}, {}, [row(b"a", 3, extra={2: 1 << 63})]],
        [1, {}, {}, [row(b"a", 1, extra={3: 7})]],
    ],
    ids=repr,
)
def test_malformed_trees_are_lost_paths(tainted: Vaulted, tmp_path: Path, tree: list[object]) -> None:
    sid = hostile(tainted, [tree])
    done = rescue(tainted.path, sid, tmp_path / "out", "--key-file", tainted.key)
    assert done.returncode == 20 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("what", ["an empty piece", "a lost piece", "a piece again and again", "an empty chunk"])
def test_lists_that_multiply_come_to_an_end(tainted: Vaulted, tmp_path: Path, what: str) -> None:
    """Four lists stand for 10^14 ids."""
    domain = tainted.repo.vault.ring.write_domain
    empty: list[object] = [1, {}, {}, []]
    full: list[object] = [1, {}, {}, [row(b"a", 1)]]
    innermost = {
        "an empty piece": domain.blob_id(BlobType.TREE, pack(empty)),
        "a lost piece": bytes(32),
        "a piece again and again": domain.blob_id(BlobType.TREE, pack(full)),
        "an empty chunk": domain.blob_id(BlobType.DATA, b""),
    }[what]
    lists = [innermost * 4096]
    for _ in range(3):
        lists.append(domain.blob_id(BlobType.LIST, lists[-1]) * 4096)
    content = Content(4, domain.blob_id(BlobType.LIST, lists[-1]))
    top: list[object] = [1, {}, {}, [row(b"file", 0, list(content), size=5)]]
    root = None if what == "an empty chunk" else content
    sid = hostile(tainted, [empty, full, top], root, lists)
    assert rescue(tainted.path, sid, tmp_path / "out", "--key-file", tainted.key).returncode == 20


def test_entries_out_of_order_are_lost(tainted: Vaulted, tmp_path: Path) -> None:
    """Names that ascend cannot come twice, in whatever way a file system folds them."""
    sid = hostile(tainted, [[1, {}, {}, [row(b"b", 1), row(b"a", 1)]]])
    done = rescue(tainted.path, sid, tmp_path / "out", "--key-file", tainted.key)
    assert (done.returncode, lost_paths(done), os.listdir(tmp_path / "out")) == (20, {"/a"}, ["b"])


def test_garbage_under_a_known_id_is_never_restored(tmp_path: Path) -> None:
    vault = make(tmp_path)
    (tmp_path / "file").write_text("content")
    snapvault.backup(vault.repo, tmp_path / "file", dataset="d")
    inner = vault.repo.vault
    blob = inner.ring.write_domain.blob_id(BlobType.DATA, b"content")
    honest = packs(vault.path)
    while min(packs(vault.path), key=lambda p: p.name) in honest:  # until the garbage is tried first
        session = Session(inner.store, inner.ring, inner.ring.write_domain)
        start = len(pack_prefix(session.header))
        s = session.secrets
        sealed = seal(s.secret, "segment", s.context, *encode_segment(b"garbage"))
        rows = [Segment(start, len(sealed), 7, blob, array("I", (7,)), bytes((BlobType.DATA,)))]
        ending = pack_ending(session.secrets, rows, start + len(sealed), full=False)
        data = pack_prefix(session.header) + bytes(sealed) + ending
        session.put_object(names.pack(blake3(data).digest()), [data])  # type: ignore[arg-type]
    assert rescue(vault.path, "latest", tmp_path / "out", "--key-file", vault.key).returncode == 0
    assert (restored(tmp_path / "out", tmp_path) / "file").read_text() == "content"
    first = 12 + int.from_bytes(honest[0].read_bytes()[8:12], "little")
    damage(honest[0], first + 40, 5)  # now garbage is all there is
    done = rescue(vault.path, "latest", tmp_path / "none", "--key-file", vault.key)
    assert done.returncode == 20 and not (restored(tmp_path / "none", tmp_path) / "file").exists()


def test_a_bomb_in_a_segment_is_refused(small: tuple[Vaulted, Path], tmp_path: Path) -> None:
    """A directory of four gigabytes of zeros, which compress to nothing, sealed by a real writer."""
    vault = make(tmp_path)
    inner = vault.repo.vault
    session = Session(inner.store, inner.ring, inner.ring.write_domain)
    s = session.secrets
    codec, bomb = compress(bytes(1 << 20))
    header = session.header
    for raw_length in (1 << 20, 1 << 26):  # the frame says 1 MiB; then an envelope that says 64 MiB
        directory = bytes(seal(s.secret, "directory", s.context, codec, raw_length, bomb))
        start = 12 + len(header)
        place = start.to_bytes(8, "little") + len(directory).to_bytes(4, "little") + bytes(4)
        trailer = bytes(seal(s.secret, "trailer", s.context, 0, 16, place))
        data = b"SVPK\x01\0\0\0" + len(header).to_bytes(4, "little") + header + directory + trailer
        session.put_object(names.pack(blake3(data).digest()), [data])  # type: ignore[arg-type]
    done = rescue(vault.path, "--list", "--key-file", vault.key)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stderr.count("cannot be read") == 2


def test_a_writer_who_claims_anothers_session_id_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make(tmp_path)
    (tmp_path / "file").write_text("content")
    snapshot = snapvault.backup(vault.repo, tmp_path / "file", dataset="d").snapshot
    add_key(vault.repo, "writer", "taken over", file=tmp_path / "writer.json")
    writer = snapvault.open(str(vault.path), keys=snapvault.KeyFile(tmp_path / "writer.json")).vault
    own = packs(vault.path)
    monkeypatch.setattr("snapvault.repository.session.random.token_hex", lambda _: snapshot)
    tries = itertools.count()
    while min(packs(vault.path), key=lambda p: p.name) in own:  # until the claim is read first
        session = Session(writer.store, writer.ring, writer.ring.write_domain)
        blobs = BlobWriter(session, writer.loader.load(), writer.ring.write_domain)
        blobs.put(BlobType.DATA, b"%d" % next(tries))
        blobs.flush()
    for without in ((), ("sessions", "index")):
        copy = vault.copy(tmp_path / f"copy {without}", without=without)
        out = tmp_path / f"out {without}"
        assert rescue(copy, "latest", out, "--key-file", vault.key).returncode == 0
        assert (restored(out, tmp_path) / "file").read_text() == "content"


@pytest.mark.parametrize("missing", ["blake3", "zstandard", "cryptography.hazmat.primitives.hpke", "msgpack"])
def test_without_its_packages_it_names_them(small: tuple[Vaulted, Path], tmp_path: Path, missing: str) -> None:
    """Not installed, or too old: one line with the command; the help works anyway."""
    vault, _ = small
    code = (
        "import sys, runpy\n"
        f"class Gone:\n def find_spec(self, name, path=None, target=None):\n  if name == {missing!r}:\n"
        "   raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Gone())\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )

    def run(*argv: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-c", code, str(vault.path / "rescue-1.py"), *map(str, argv)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(vault.path, "latest", tmp_path / "out", "--key-file", vault.key)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done
    assert done.stderr.endswith('pip install "cryptography>=50" zstandard blake3 msgpack\n'), done.stderr
    assert not (tmp_path / "out").exists()
    helped = run("--help")
    assert helped.returncode == 0 and "TARGET" in helped.stdout and helped.stderr == ""


def test_it_says_whose_snapshots_there_are(tmp_path: Path) -> None:
    """Any writer can use another's dataset, twice too; what is the newest then is said together with whose it is."""
    vault = make(tmp_path)
    (tmp_path / "source").mkdir()
    source = tmp_path / "source/file"
    source.write_text("mine")
    mine = snapvault.backup(vault.repo, source, dataset="d").snapshot
    assert "WARNING" not in rescue(vault.path, "d@latest", tmp_path / "1", "--key-file", vault.key).stderr
    add_key(vault.repo, "writer", "laptop", file=tmp_path / "laptop.key")
    with snapvault.open(str(vault.path), keys=snapvault.KeyFile(tmp_path / "laptop.key")) as laptop:
        source.write_text("evil")
        theirs = [snapvault.backup(laptop, source, dataset="d").snapshot for _ in range(2)]
    done = rescue(vault.path, "d@latest", tmp_path / "2", "--key-file", vault.key)
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert f"{theirs[-1][:8]}, by the key laptop (" in warning and f"{mine[:8]}, by the key owner (" in warning
    listed = rescue(vault.path, "--list", "--key-file", vault.key).stdout.splitlines()
    assert [(line.split()[0], line.split(" by ")[1].split()[0]) for line in listed] == [
        (mine, "owner"), *((sid, "laptop") for sid in theirs),
    ]  # fmt: skip
    shutil.rmtree(vault.path / "keyset")
    bare = rescue(vault.path, "d@latest", tmp_path / "3", "--key-file", vault.key)
    assert bare.returncode == 0 and "WARNING" in bare.stderr and "laptop" not in bare.stderr


# ---- the files themselves --------------------------------------------------------------------------------------------


def test_the_repository_carries_the_files_and_the_keyset_their_digests(small: tuple[Vaulted, Path]) -> None:
    vault, _ = small
    keyset = vault.repo.vault.ring.current
    assert {name for name, _ in keyset.rescue} == {"RESCUE-1.md", "rescue-1.py"}
    for name, digest in keyset.rescue:
        shipped = (resources.files("snapvault.rescue") / name).read_bytes()
        assert (vault.path / name).read_bytes() == shipped and hashlib.sha256(shipped).digest() == digest


def test_no_frame_offset_changed_unseen() -> None:
    """The program spells the format out once more, on purpose; this catches a change that forgot it."""
    text = (resources.files("snapvault.rescue") / "rescue-1.py").read_text()
    assert "data[8:-32]" in text and HEADER_SIZE == 8
    for name in ("CONFIG", "KEYSET", "SLOT", "SESSION", "SNAPSHOT", "INDEX", "CERTIFICATE"):
        assert name in text
