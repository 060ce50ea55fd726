"""What a put into a folder really asks of the kernel, and what happens when the kernel says no or the power goes.

Battery families 1 and 4 for one put; the calls are found by tracing a clean run, then each is hit in a run of its own.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import strace

from snapvault.backend.local import LocalBackend
from snapvault.backend.protocol import Exists, NotFound
from snapvault.foundation.errors import StoreFull

NAME, BODY = "packs/ab/one", b"x" * 300_000
WORKER = """
import sys
from snapvault.backend.local import LocalBackend
from snapvault.foundation.errors import SnapvaultError
root, method = sys.argv[1:]
backend = LocalBackend(root)
try:
    getattr(backend, method)("packs/ab/one", [b"x" * 100_000] * 3)
except SnapvaultError as err:
    print(type(err).__name__)
else:
    print("stored")
"""
CHANGING = "mkdir,writev,fsync,linkat,renameat,renameat2,rename,unlinkat"
TRACED = CHANGING + ",openat,close"
KINDS = {
    "ENOSPC": "StoreFull",
    "EDQUOT": "StoreFull",
    "EIO": "StoreUnavailable",
    "EACCES": "StoreDenied",
    "EROFS": "StoreDenied",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "repo").mkdir()
    return tmp_path / "repo"


def put(root: Path, method: str, *inject: str) -> strace.Run:
    return strace.run(WORKER, str(root), method, trace=TRACED, log=root.parent / "trace", inject=inject)


def own_calls(run: strace.Run, root: Path) -> list[strace.Call]:
    return [call for call in run.calls if str(root) in call.text]


def temps(root: Path) -> list[Path]:
    return list(root.rglob(".tmp-*"))


def empty_again(root: Path) -> None:
    subprocess.run(["find", str(root), "-mindepth", "1", "-delete"], check=True)


@pytest.mark.parametrize(("method", "publish"), [("put_if_absent", "linkat"), ("put", "renameat")])
def test_order_of_a_durable_put(root: Path, method: str, publish: str) -> None:
    run = put(root, method)
    assert run.output == "stored\n"
    seen = [(call.name.replace("renameat2", "renameat"), call.text) for call in own_calls(run, root)]
    steps = [(name, text) for name, text in seen if name not in ("openat", "close")]
    names = [name for name, _ in steps]
    cleanup = ["unlinkat"]  # of the temporary name, also after a rename, where it is gone
    assert names == ["mkdir", "fsync", "mkdir", "fsync", "writev", "fsync", publish, *cleanup, "fsync"]
    texts = [text for _, text in steps]
    assert f"<{root}>" in texts[1]  # the parent of the new folder "packs"
    assert f"<{root}/packs>" in texts[3]  # the parent of "ab"
    assert "/packs/ab/.tmp-" in texts[4] and "/packs/ab/.tmp-" in texts[5]  # the file, before it gets its name
    assert '"one"' in texts[6]
    assert f"<{root}/packs/ab>)" in texts[-1]  # the folder, after


def hits(root: Path, method: str, calls: str) -> Iterator[strace.Call]:
    """Each call of a clean run that touches the repository, then an empty repository to hit it in."""
    put(root, method)  # once for the file cache
    empty_again(root)
    clean = own_calls(put(root, method), root)
    for call in clean:
        if call.name in calls.split(","):
            empty_again(root)
            yield call


@pytest.mark.parametrize(
    ("method", "error"),
    [
        *(("put_if_absent", error) for error in sorted(KINDS)),
        ("put", "EIO"),
        ("put", "ENOSPC"),
    ],  # put differs in one call
)
def test_every_call_may_fail(root: Path, method: str, error: str) -> None:
    backend, published, count = LocalBackend(root), False, 0
    for call in hits(root, method, TRACED):
        run = put(root, method, f"{call.name}:error={error}:when={call.ordinal}")
        assert any(c.injected for c in own_calls(run, root)), call
        published = published or call.name.startswith(("linkat", "rename"))
        said = run.output.strip()
        if call.name == "unlinkat":
            assert said == "stored"  # a left-over has an owner and is no reason to fail
        else:
            assert said == KINDS[error], call
            assert temps(root) == []
        before = call.name in ("linkat", "renameat", "renameat2", "rename") or not published
        assert stored(backend) == (None if before else BODY), call
        assert [info.name for info in backend.list()] == ([] if before else [NAME])
        rerun(backend, method)
        count += 1
    assert count >= 15


def stored(backend: LocalBackend) -> bytes | None:
    try:
        return backend.get(NAME)
    except NotFound:
        return None


def rerun(backend: LocalBackend, method: str) -> None:
    try:
        getattr(backend, method)(NAME, [BODY])
    except Exists:
        assert method == "put_if_absent"
    assert backend.get(NAME) == BODY


@pytest.mark.parametrize("method", ["put_if_absent", "put"])
def test_killed_at_every_call(root: Path, method: str) -> None:
    backend, count = LocalBackend(root), 0
    for call in hits(root, method, CHANGING):
        run = put(root, method, f"{call.name}:signal=KILL:when={call.ordinal}")
        assert run.returncode != 0 and run.output == "", call
        assert stored(backend) in (None, BODY), call
        assert [info.name for info in backend.list()] in ([], [NAME])
        rerun(backend, method)
        left = len(temps(root))
        assert backend.remove_stale_temps(0) == left
        assert temps(root) == [] and backend.get(NAME) == BODY
        count += 1
    assert count >= 9


@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_a_failed_fsync_is_final(root: Path, which: int) -> None:
    """The kernel reports lost pages once; asking again would get a yes."""
    put(root, "put_if_absent")
    empty_again(root)
    fsyncs = [call for call in own_calls(put(root, "put_if_absent"), root) if call.name == "fsync"]
    empty_again(root)
    run = put(root, "put_if_absent", f"fsync:error=EIO:when={fsyncs[which - 1].ordinal}")
    assert run.output == "StoreUnavailable\n"
    after = [call for call in own_calls(run, root) if call.name == "fsync"]
    assert after[-1].injected and len(after) == which


def test_no_hard_links(root: Path) -> None:
    """FAT and exFAT: rename without replacing instead."""
    run = put(root, "put_if_absent", "linkat:error=EPERM:when=1")
    assert run.output == "stored\n" and LocalBackend(root).get(NAME) == BODY
    LocalBackend(root).put(NAME, [b"other"])
    run = put(root, "put_if_absent", "linkat:error=EPERM:when=1")
    assert run.output == "Exists\n"
    assert LocalBackend(root).get(NAME) == b"other" and temps(root) == []


def test_neither_hard_links_nor_exclusive_rename(root: Path) -> None:
    run = put(root, "put_if_absent", "linkat:error=EPERM:when=1", "renameat2:error=EINVAL:when=1")
    assert run.output == "StoreDenied\n"
    assert stored(LocalBackend(root)) is None and temps(root) == []


def test_a_taken_name_is_durable_before_it_is_reported(root: Path) -> None:
    put(root, "put_if_absent")
    run = put(root, "put_if_absent")
    assert run.output == "Exists\n"
    names = [call.name for call in own_calls(run, root)]
    assert "fsync" in names[names.index("linkat") :]


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=True)
    try:
        backend = LocalBackend(disk / "repo", create=True)
        backend.put_if_absent("packs/ab/first", [b"1" * 300_000])
        for call in (backend.put, backend.put_if_absent):
            with pytest.raises(StoreFull) as caught:
                call("packs/ab/second", [b"2" * 600_000, b"2" * 600_000])
            assert caught.value.affected == ("packs/ab/second",)
            assert [info.name for info in backend.list()] == ["packs/ab/first"]
            assert temps(disk) == []
        with pytest.raises(StoreFull):
            backend.put("packs/ab/first", [b"3" * 1_200_000])
        assert backend.get("packs/ab/first") == b"1" * 300_000
        backend.put_if_absent("packs/ab/small", [b"4" * 1000])
        assert backend.get("packs/ab/small") == b"4" * 1000
    finally:
        subprocess.run(["umount", str(disk)], check=True)
