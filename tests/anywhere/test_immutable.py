"""A repository that nobody can delete: on a real server that locks objects, and one that lets a client only add."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import front
import pytest
import servers
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from locking import client_of, end_locks, locked_place, port_of, versions

import snapvault
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.foundation.errors import StoreDenied
from snapvault.operations.prune import PruneLimits, plan_prune
from snapvault.repository import session
from snapvault.repository.site import Site
from tests.repos import SEED, contents

GUIDE = Path(snapvault.__file__).parents[1] / "docs/guide/immutable.md"
NOW = timedelta(0)


def opened(place: servers.Place, key: bytes = SEED, **options: Any) -> snapvault.Repository:
    url, storage = place
    return snapvault.open(url, keys=lambda: key, storage_options=storage, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    (root / "one").write_bytes(bytes(range(256)) * 2000)
    return root


def save(repo: snapvault.Repository, source: Path) -> str:
    result = snapvault.backup(repo, source, dataset="d")
    assert (result.status, result.warnings) == ("ok", ())
    return result.snapshot


def comes_back(repo: snapvault.Repository, snapshot: str, source: Path, out: Path) -> None:
    assert snapvault.restore(repo, snapshot, out).status == "ok"
    assert contents(Path(f"{out}{source}")) == contents(source)


def prune(repo: snapvault.Repository) -> snapvault.PruneResult:
    return plan_prune(repo, limits=PruneLimits(0)).execute(wait=NOW)


def test_a_locked_life(seaweedfs: servers.Fresh, source: Path, tmp_path: Path) -> None:
    place = locked_place(seaweedfs())
    began = datetime.now(UTC)
    with snapvault.init(place[0], keys=lambda: SEED, storage_options=place[1]).repository as repo:
        first = save(repo, source)
        (source / "one").write_bytes(bytes(reversed(range(256))) * 2000)
        second = save(repo, source)
        lock = snapvault.check(repo).lock
        assert lock is not None and lock.until is not None and (lock.status, lock.mode) == ("ok", "governance")
        assert began + timedelta(days=30) - timedelta(seconds=1) <= lock.until < datetime.now(UTC) + timedelta(days=30)
        _destroyed_and_back(place)
        comes_back(repo, second, source, tmp_path / "out")

        snapvault.forget_snapshots(repo, [first], undelete_window=NOW)
        kept = prune(opened(place))
        assert kept.status == "ok" and kept.packs_removed == 0 < kept.packs_locked and kept.refused == 0
        assert kept.locked_until is not None and kept.locked_until > began + timedelta(days=29)
    end_locks(place)
    with opened(place) as repo:
        unlocked = snapvault.check(repo)
        assert unlocked.status == "partial" and unlocked.lock is not None and unlocked.lock.until is None
        before = {v["Key"] for v in versions(place) if f"/{names.PACKS}" in v["Key"]}
        done = prune(repo)
        assert done.lock is not None and done.lock.extended == done.lock.objects and done.status == "ok"
        assert done.packs_removed == kept.packs_locked and done.bytes_removed == kept.bytes_locked
        after = {v["Key"] for v in versions(place) if f"/{names.PACKS}" in v["Key"]}
        assert len(before - after) == done.packs_removed  # for good, with all versions
        assert snapvault.check(repo, read_data=True).status == "ok"
        comes_back(repo, second, source, tmp_path / "again")


def _destroyed_and_back(place: servers.Place) -> None:
    """Somebody with all rights but one deletes everything, twice; and the markers that this leaves are removed."""
    url, options = place
    bucket, client = urlsplit(url).netloc, client_of(options)
    there = {v["Key"]: v["VersionId"] for v in versions(place) if f"/{names.LOCAL}" not in v["Key"]}
    for key, version in there.items():
        client.delete_object(Bucket=bucket, Key=key)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    with pytest.raises(snapvault.RepositoryNotFound):
        opened(place)
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for marker in page.get("DeleteMarkers", ()):
            if marker["Key"] in there:
                client.delete_object(Bucket=bucket, Key=marker["Key"], VersionId=marker["VersionId"])


# -- a client that may add, and nothing else ---------------------------------------------------------------------------


def policy(bucket: str) -> str:
    """What the guide shows, for this server's account, but for the statement that ``front`` stands for."""
    (text,) = re.findall(r"```json\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    shown = json.loads(text.replace("my-backups", bucket).replace("111122223333", "000000000000"))
    kept = [s for s in shown["Statement"] if "Condition" not in s]
    (other,) = [s for s in shown["Statement"] if "Condition" in s]
    assert (other["Sid"], other["Condition"]) == ("NoOverwrite", {"Null": {"s3:if-none-match": "true"}})
    return json.dumps({**shown, "Statement": kept})


@pytest.fixture
def owners(seaweedfs: servers.Fresh) -> servers.Place:
    """A place in a bucket with the policy, for somebody with all rights."""
    url, options = seaweedfs()
    bucket = urlsplit(url).netloc
    client_of(options).put_bucket_policy(Bucket=bucket, Policy=policy(bucket))
    return url, options


@pytest.fixture
def writers(owners: servers.Place) -> Iterator[servers.Place]:
    """The same place for a client that can neither delete nor overwrite."""
    url, options = owners
    with front.serve(port_of(options)) as (port, refused):
        yield url, servers.s3_options(port, servers.WRITER, servers.WRITER_SECRET)
        assert not refused, "something was to be overwritten"


def test_a_client_that_may_only_add(
    owners: servers.Place,
    writers: servers.Place,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its whole life: it is let in, backs up, comes back, is checked, pruned and copied to; it deletes nothing."""
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.02)  # so that there are some to delete
    with snapvault.init(owners[0], keys=lambda: SEED, storage_options=owners[1]).repository as owner:
        snapvault.add_key(owner, Role.WRITER, "laptop", file=tmp_path / "key")
    key = (tmp_path / "key").read_bytes()
    with opened(writers, key, cache=tmp_path / "cache") as laptop:
        first = save(laptop, source)
        (source / "two").write_bytes(bytes(range(255)) * 1000)
        second = save(laptop, source)
        some = next(o.name for o in laptop.vault.backend.list(names.PACKS))
        with pytest.raises(StoreDenied):
            laptop.vault.backend.delete(some)
        assert laptop.vault.backend.head(some).size
    with opened(writers) as limited:  # the owner's key, with the client's credentials
        comes_back(limited, second, source, tmp_path / "out")
        assert snapvault.check(limited, read_data=True).status == "ok"
        snapvault.forget_snapshots(limited, [first], undelete_window=NOW)
        save(limited, source)
        refused = prune(limited)
        assert refused.status == "partial" and refused.refused and refused.packs_removed == 0
        assert "AccessDenied" in refused.refusal or "Access Denied" in refused.refusal
        assert list(limited.vault.backend.list(names.HEARTBEATS))
    assert not caplog.records  # what cannot be tidied up is no news to whoever backs up
    with opened(owners) as owner:
        done = prune(owner)
        assert done.status == "ok" and not done.refused
        assert not list(owner.vault.backend.list(names.HEARTBEATS))
        assert snapvault.check(owner, read_data=True).status == "ok"


def test_a_copy_where_one_may_only_add(writers: servers.Place, source: Path, tmp_path: Path) -> None:
    """Made, and brought up to date, without deleting or overwriting anything."""
    here = str(tmp_path / "here")
    with snapvault.init(here, keys=lambda: SEED).repository as repo:
        for number in range(2):
            (source / "one").write_bytes(bytes([number]) * 300_000)
            newest = save(repo, source)
            result = snapvault.replicate(here, Site(*writers))
            assert (result.status, result.snapshots) == ("ok", 1)
    with opened(writers) as there:
        comes_back(there, newest, source, tmp_path / "out")
        assert snapvault.attest(there, "there", read=True).bad == 0
