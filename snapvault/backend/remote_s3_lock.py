"""S3's object lock: a date up to which a version of an object cannot be removed."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Protocol

from snapvault.backend.object_lock import Lock, LockRule
from snapvault.backend.remote_errors import s3_code
from snapvault.format.names import LOCAL
from snapvault.foundation.clock import now
from snapvault.foundation.errors import InvalidInput, StoreDenied
from snapvault.platform.remote import OBJECT_LOCK

_NOT_LOCKED = ("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError")  # AWS; SeaweedFS


class Requests(Protocol):
    """What is needed of the driver."""

    bucket: str

    def key(self, name: str) -> str: ...

    def call(self, method: str, name: str, **arguments: Any) -> Mapping[str, Any]: ...

    def ask(self, method: str, **arguments: Any) -> Mapping[str, Any]: ...


class S3ObjectLock:
    """Locks what is put, but for objects below ``local/``: these come and go (docs/adr/0011-object-lock.md)."""

    def __init__(self, rule: LockRule, driver: Requests) -> None:
        self._rule, self._driver = rule, driver
        self._able = False

    def headers(self, name: str) -> Mapping[str, Any]:
        """What a PUT of this name carries; InvalidInput where the bucket would not heed it."""
        if name.startswith(LOCAL):
            return {}
        self._require()
        until = now() + self._rule.period
        return {"ObjectLockMode": self._rule.mode.upper(), "ObjectLockRetainUntilDate": until}

    def of(self, name: str) -> Lock | None:
        """See ObjectLocks; likewise the others."""
        self._require()
        try:
            found = self._driver.call("get_object_retention", name).get("Retention", {})
        except OSError as err:
            if s3_code(err)[0] in _NOT_LOCKED:
                return None
            raise
        mode, until = found.get("Mode"), found.get("RetainUntilDate")
        if not mode or until is None:  # one without the other holds nothing
            return None
        return Lock(mode.lower(), until if until.tzinfo is not None else until.replace(tzinfo=UTC))

    def set(self, name: str, lock: Lock) -> None:
        self._driver.call(
            "put_object_retention", name, Retention={"Mode": lock.mode.upper(), "RetainUntilDate": lock.until}
        )

    def release(self, name: str) -> None:
        """The oldest version first, so that where one is refused, none shows that was replaced."""
        key = self._driver.key(name)
        found = self._driver.ask("list_object_versions", Prefix=key)
        versions = [*found.get("Versions", ()), *found.get("DeleteMarkers", ())]
        versions.sort(key=lambda v: v["LastModified"], reverse=True)  # to the second, in which the newest comes first
        for version in reversed(versions):
            if version["Key"] == key:
                self._driver.call("delete_object", name, VersionId=version["VersionId"])

    def _require(self) -> None:
        """That the bucket can lock: stores that know nothing of it take the headers and ignore them."""
        if not self._able:
            answer = self._configuration()
            if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
                raise InvalidInput(
                    f"the bucket {self._driver.bucket} locks no objects, as the storage option {OBJECT_LOCK} asks for",
                    hint="object lock is switched on when a bucket is made: take another one, or leave the option out",
                )
            self._able = True

    def _configuration(self) -> Mapping[str, Any]:
        try:
            return self._driver.ask("get_object_lock_configuration")
        except OSError as err:
            code, status = s3_code(err)
            if status == 403:
                raise StoreDenied(
                    f"it cannot be seen whether the bucket {self._driver.bucket} locks objects",
                    hint="the credentials need s3:GetBucketObjectLockConfiguration",
                ) from err
            if code == "NoSuchBucket" or (status >= 500 and status != 501) or not status:
                raise
            return {}
