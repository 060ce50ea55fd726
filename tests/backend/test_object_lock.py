"""Object lock on S3: what is locked at upload, who may lift it, and what cannot lock."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import s3stub
import servers
from locking import client_of, end_locks, locked_place, versions
from s3stub import Answer, Stub

from snapvault.backend.factory import open_backend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.object_lock import Lock, LockRule, hides_deleted, lock_rule, take_rule, with_locks
from snapvault.backend.protocol import Backend, Exists, NotFound
from snapvault.backend.remote import FsspecBackend
from snapvault.foundation.errors import InvalidInput, RepositoryNotFound, StoreDenied, StoreUnavailable
from snapvault.platform.remote import connect

RULE = {"mode": "governance", "days": 30}
NAMES = ("config", "keyset/1", "packs/aa/1", "index/1", "sessions/1", "snapshots/1", "slots/a/1", "notes/a/1")
LOCAL = ("local/heartbeats/1/1", "local/gc/1", "local/probe-1")


def of(store: Backend, name: str) -> Lock | None:
    return with_locks(store, name, lambda locks: locks.of(name))


# -- the option --------------------------------------------------------------------------------------------------------

WRONG: list[Any] = [
    {}, "governance", 30, True, {"mode": "governance"}, {"days": 30},
    {**RULE, "mode": "GOVERNANCE"}, {**RULE, "mode": []},
    {**RULE, "days": 0}, {**RULE, "days": 36_501}, {**RULE, "days": 1.5}, {**RULE, "days": True}, {**RULE, "hold": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_an_option_that_is_wrong(value: object) -> None:
    """A lock that was misspelt must not be no lock."""
    with pytest.raises(InvalidInput, match=r"mode = \"governance\", days = 30"):
        take_rule({"object_lock": value})


def test_the_option_is_not_the_drivers() -> None:
    options: dict[str, Any] = {"key": "k", "object_lock": {"mode": "compliance", "days": 7}}
    assert take_rule(options) == LockRule("compliance", 7) and options == {"key": "k"}
    assert take_rule(options) is None
    fs, _ = connect("memory://source", {"object_lock": RULE})  # of a source or a target, which is not locked
    assert "object_lock" not in fs.storage_options


@pytest.mark.parametrize("url", ["sftp://127.0.0.1:1/repo", "ftp://127.0.0.1/repo", "memory://here", "/tmp/here"])
def test_other_places_do_not_pass_for_locked(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"no object can be locked|no storage options"):
        open_backend(url, {"object_lock": RULE})


def test_who_has_no_rule_locks_nothing(seaweedfs: servers.Fresh) -> None:
    assert lock_rule(MemoryBackend()) is None and not hides_deleted(MemoryBackend())
    store = open_backend(*seaweedfs())
    assert lock_rule(store) is None
    with pytest.raises(InvalidInput, match="without the storage option"):
        of(store, "a")
    store.close()


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(seaweedfs: servers.Fresh) -> servers.Place:
    return locked_place(seaweedfs())


@pytest.fixture(scope="module")
def store(place: servers.Place) -> Iterator[Backend]:
    """In a bucket that this made."""
    made = open_backend(*place, create=True)
    yield made
    made.close()


def test_what_is_locked_at_upload(store: Backend) -> None:
    for name in (*NAMES, *LOCAL):
        before = datetime.now(UTC)
        store.put_if_absent(name, [b"whole"])
        lock = of(store, name)
        if name in LOCAL:
            assert lock is None
        else:
            assert lock is not None and lock.mode == "governance"
            period = timedelta(days=30)
            assert before + period - timedelta(seconds=1) <= lock.until <= datetime.now(UTC) + period
        with pytest.raises(Exists):
            store.put_if_absent(name, [b"other"])
    store.put("packs/aa/1", [b"mended"])  # as repair does: a version above the old one, and locked too
    assert store.get("packs/aa/1") == b"mended" and of(store, "packs/aa/1") is not None
    with pytest.raises(NotFound):
        of(store, "packs/aa/2")


def test_a_lock_holds_and_is_only_ever_longer(store: Backend, place: servers.Place) -> None:
    store.put_if_absent("packs/bb/1", [b"whole"])
    first = of(store, "packs/bb/1")
    assert first is not None
    for shorter in (Lock("governance", first.until - timedelta(days=1)), Lock("governance", datetime.now(UTC))):
        with pytest.raises((StoreDenied, InvalidInput)):
            with_locks(store, "packs/bb/1", lambda locks, lock=shorter: locks.set("packs/bb/1", lock))
    longer = Lock("governance", first.until + timedelta(days=9))
    with_locks(store, "packs/bb/1", lambda locks: locks.set("packs/bb/1", longer))
    assert of(store, "packs/bb/1") == longer
    with pytest.raises(StoreDenied):
        with_locks(store, "packs/bb/1", lambda locks: locks.release("packs/bb/1"))
    assert store.get("packs/bb/1") == b"whole"


def test_deleted_is_hidden_and_released_is_gone(store: Backend, place: servers.Place) -> None:
    names = {"packs/cc/1": b"old", "packs/cc/11": b"of another name"}
    for name, body in names.items():
        store.put_if_absent(name, [body])
    store.put("packs/cc/1", [b"new"])
    store.delete("packs/cc/1")
    assert [o.name for o in store.list("packs/cc/")] == ["packs/cc/11"] and hides_deleted(store)
    kept = [v["Key"] for v in versions(place) if "packs/cc" in v["Key"]]
    assert kept == ["repo/packs/cc/1", "repo/packs/cc/1", "repo/packs/cc/11"]  # two versions, below a mark
    end_locks(place)
    with_locks(store, "packs/cc/1", lambda locks: locks.release("packs/cc/1"))
    assert [v["Key"] for v in versions(place) if "packs/cc" in v["Key"]] == ["repo/packs/cc/11"]
    assert [o.name for o in store.list("packs/cc/")] == ["packs/cc/11"]
    store.put_if_absent("packs/cc/1", [b"again"])


def test_a_bucket_that_cannot_lock(seaweedfs: servers.Fresh) -> None:
    """Told before anything is stored there without a lock."""
    url, options = seaweedfs()
    store = open_backend(url, {**options, "object_lock": RULE}, create=True)
    for call in (lambda: store.put_if_absent("packs/aa/1", [b"x"]), lambda: of(store, "packs/aa/1")):
        with pytest.raises(InvalidInput, match="locks no objects"):
            call()
    assert list(store.list()) == []
    store.close()


def test_without_the_right_to_lock(place: servers.Place, store: Backend) -> None:
    """The server's policies decide who may lock, look and lift."""
    url, options = place
    bucket = urlsplit(url).netloc
    writer = {**options, "key": servers.WRITER, "secret": servers.WRITER_SECRET}
    theirs = open_backend(url, writer)
    theirs.put_if_absent("packs/dd/1", [b"x"])
    denied = {"Effect": "Deny", "Principal": "*", "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}
    rights = {"s3:PutObjectRetention": lambda: theirs.put_if_absent("packs/dd/2", [b"x"]),
              "s3:GetObjectRetention": lambda: of(theirs, "packs/dd/1")}  # fmt: skip
    client = client_of(options)
    try:
        for right, call in rights.items():
            policy = {"Version": "2012-10-17", "Statement": [{**denied, "Action": [right]}]}
            client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
            with pytest.raises(StoreDenied):
                call()
    finally:
        client.delete_bucket_policy(Bucket=bucket)
    theirs.close()


# -- answers that a server may give ------------------------------------------------------------------------------------

ENABLED = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
ANSWERS: dict[str, tuple[Answer, type[Exception] | None]] = {
    "enabled": (Answer(body=ENABLED), None),
    "something else": (Answer(body=b"<ObjectLockConfiguration></ObjectLockConfiguration>"), InvalidInput),
    "no such configuration": (Answer(404, "ObjectLockConfigurationNotFoundError"), InvalidInput),
    "never heard of it": (Answer(501, "NotImplemented"), InvalidInput),
    "may not be seen": (Answer(403, "AccessDenied"), StoreDenied),
    "no bucket": (Answer(404, "NoSuchBucket"), RepositoryNotFound),
    "a passing fault": (Answer(503, "SlowDown"), StoreUnavailable),
    "no answer": (Answer(drop=True), StoreUnavailable),
}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with s3stub.serve() as server:
        yield server


@pytest.mark.parametrize(("answer", "error"), ANSWERS.values(), ids=list(ANSWERS))
def test_what_a_bucket_says_of_itself(stub: Stub, answer: Answer, error: type[Exception] | None) -> None:
    """Unless it says that it locks, nothing is put; and it is asked once."""
    url, options = stub.place()
    store = FsspecBackend(url, {**options, "object_lock": RULE})
    stub.script = [answer]
    if error is None:
        store.put_if_absent("packs/1", [b"x"])
        store.put_if_absent("packs/2", [b"x"])
        assert [method for method, _ in stub.seen] == ["GET", "PUT", "PUT"]
    else:
        with pytest.raises(error):
            store.put_if_absent("packs/1", [b"x"])
        assert not stub.objects
    stub.seen.clear()
    store.put_if_absent("local/x", [b"x"])
    assert [method for method, _ in stub.seen] == ["PUT"]  # of what is never locked nobody asks
    store.close()


RETENTIONS = {
    "none": ("", None),
    "no mode": ("<RetainUntilDate>2040-01-02T03:04:05Z</RetainUntilDate>", None),
    "no date": ("<Mode>GOVERNANCE</Mode>", None),
    "whole": ("<Mode>GOVERNANCE</Mode><RetainUntilDate>2040-01-02T03:04:05Z</RetainUntilDate>", 2040),
    "no time zone": ("<Mode>COMPLIANCE</Mode><RetainUntilDate>2041-01-02T03:04:05</RetainUntilDate>", 2041),
}


@pytest.mark.parametrize(("told", "year"), RETENTIONS.values(), ids=list(RETENTIONS))
def test_what_a_store_says_of_a_lock(stub: Stub, told: str, year: int | None) -> None:
    """Half a lock is none."""
    url, options = stub.place()
    store = FsspecBackend(url, {**options, "object_lock": RULE})
    stub.script = [Answer(body=ENABLED), Answer(body=f"<Retention>{told}</Retention>".encode())]
    lock = of(store, "packs/1")
    assert (lock is None) == (year is None)
    if lock is not None:
        assert lock.until == datetime(year or 0, 1, 2, 3, 4, 5, tzinfo=UTC)
    store.close()
