"""A store that locks objects, in this process; and the same on a real server: buckets, rights, and time that passes."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import servers

from snapvault.backend.object_lock import Lock, LockRule
from snapvault.backend.protocol import Backend, Buffer
from snapvault.format import names
from snapvault.foundation.errors import StoreDenied

T = TypeVar("T")
RULE = LockRule("governance", 30)


class LockingStore:
    """Another store's objects, locked by this process's clock as S3 would.  ``denied``: methods that are refused, or
    a method and a name.

    No wrapper, so that it is the innermost backend.
    """

    hides_deleted = True

    def __init__(self, inner: Backend, rule: LockRule | None = RULE) -> None:
        self.inner, self.lock_rule = inner, rule
        self.locks: dict[str, Lock] = {}
        self.denied: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _call(self, method: str, name: str) -> None:
        if method in self.denied or f"{method} {name}" in self.denied:
            raise StoreDenied(f"{method} of {name}: no", affected=[name])

    def _put(self, put: Callable[..., None], name: str, data: Sequence[Buffer]) -> None:
        put(name, data)
        if self.lock_rule is not None and not name.startswith(names.LOCAL):
            self.locks[name] = Lock(self.lock_rule.mode, datetime.now(UTC) + self.lock_rule.period)

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._call("put", name)
        self._put(self.inner.put, name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self._call("put_if_absent", name)
        self._put(self.inner.put_if_absent, name, data)

    def delete(self, name: str) -> None:
        """Hidden, whatever its lock is."""
        self._call("delete", name)
        self.inner.delete(name)

    def with_locks(self, name: str, call: Callable[[Any], T]) -> T:
        return call(self)

    def of(self, name: str) -> Lock | None:
        self._call("of", name)
        self.inner.head(name)
        return self.locks.get(name)

    def set(self, name: str, lock: Lock) -> None:
        self._call("set", name)
        before = self.locks.get(name)
        if before is not None and before.until > datetime.now(UTC):
            assert lock.mode == before.mode and lock.until > before.until, "S3 refuses that"
        self.locks[name] = lock

    def release(self, name: str) -> None:
        self._call("release", name)
        lock = self.locks.get(name)
        if lock is not None and lock.until > datetime.now(UTC):
            raise StoreDenied(f"{name} is locked", affected=[name])
        self.inner.delete(name)

    def pass_time(self, days: int) -> None:
        """As if so many days had gone by since everything was put."""
        self.locks = {name: Lock(k.mode, k.until - timedelta(days=days)) for name, k in self.locks.items()}


# -- on a real server --------------------------------------------------------------------------------------------------


def port_of(options: dict[str, Any]) -> int:
    return urlsplit(options["client_kwargs"]["endpoint_url"]).port or 0


def client_of(options: dict[str, Any]) -> Any:
    """The vendor's client, with all rights."""
    return servers.s3_client(port_of(options))


def locked_place(place: servers.Place, *, days: int = 30) -> servers.Place:
    """A bucket that is not there yet on the same server, and options to lock what is put into it."""
    _, options = place
    rule = {"mode": "governance", "days": days}
    return f"s3://locked-{secrets.token_hex(6)}/repo", {**options, "object_lock": rule}


def versions(place: servers.Place) -> Iterator[dict[str, Any]]:
    """All versions that a bucket keeps, the newest of each name first; not its delete markers."""
    url, options = place
    pages = client_of(options).get_paginator("list_object_versions")
    for page in pages.paginate(Bucket=urlsplit(url).netloc):
        yield from page.get("Versions", ())


def end_locks(place: servers.Place) -> None:
    """What time does: each lock's end is set to a moment from now, by a right that few have, and that moment passes."""
    url, options = place
    client, locked = client_of(options), [v for v in versions(place) if f"/{names.LOCAL}" not in v["Key"]]
    soon = datetime.now(UTC) + timedelta(seconds=2 + 0.2 * len(locked))  # a moment that is over is refused
    for version in locked:
        client.put_object_retention(
            Bucket=urlsplit(url).netloc, Key=version["Key"], VersionId=version["VersionId"],
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon}, BypassGovernanceRetention=True,
        )  # fmt: skip
    while datetime.now(UTC) <= soon:
        time.sleep(0.05)
