"""The steps of the demo, in order."""

import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import snapvault
from snapvault.cli.output import Output
from snapvault.cli.progress import long_operation
from snapvault.cli.text import human_size
from snapvault.demo import trees
from snapvault.foundation.words import count
from snapvault.operations.saver import RACY_NS


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what was done, what came of it, and whether that is what was promised."""

    step: str
    result: str
    seconds: float
    good: bool = True


class Story:
    """Works in one folder; every step gives a Row."""

    def __init__(self, place: Path, source: Path) -> None:
        self._place, self._source = place, source
        self._tree, self._store = place / "tree", place / "repository"
        self._password = secrets.token_urlsafe()
        self._key_file = place / "recovery.key"
        self._before: trees.Manifest = {}
        self._after: trees.Manifest = {}
        self._lost: set[str] = set()

    def rows(self) -> Iterable[Row]:
        """Runs the whole story."""
        yield self._copy()
        result = snapvault.init(str(self._store), password=self._password)
        self._key_file.write_text(result.recovery_key + "\n")
        with result.repository as repo:
            yield self._backup(repo, "back up")
            trees.change(self._tree)
            self._after = trees.manifest(self._tree)
            yield self._backup(repo, "back up after a day of changes")
            yield self._restore(repo)
            yield self._restore_older(repo)
            yield self._check(repo)
        yield self._damage()
        yield self._restore_damaged()
        yield self._rescue()

    def _copy(self) -> Row:
        started = time.monotonic()
        trees.copy_tree(self._source, self._tree)
        self._before = trees.manifest(self._tree)
        # A file that is this young when it is read may change again without a new time, so it would be read twice.
        time.sleep(RACY_NS / 1e9)
        files = sum(1 for p in self._tree.rglob("*") if p.is_file())
        return Row("copy a real tree", f"{count(files, 'file')} of {self._source}", time.monotonic() - started)

    def _backup(self, repo: snapvault.Repository, step: str) -> Row:
        with long_operation(Output()) as control:
            r = snapvault.backup(repo, self._tree, dataset="demo", control=control)
        stored = sum(p.stat().st_size for p in self._store.rglob("*") if p.is_file())
        said = f"{human_size(r.bytes_total)} of files: {human_size(r.bytes_new)} of it new, "
        said += f"{human_size(r.bytes_stored)} stored, compressed and encrypted"
        if not r.parent:
            share = f"the whole repository takes {human_size(stored)}, {stored / r.bytes_total:.0%} of that"
            return Row(step, f"{said}; {share}", r.seconds, r.status == "ok")
        same = trees.files_in_both(self._before, self._after)
        unread = r.bytes_total - r.bytes_read == sum((self._tree / path).stat().st_size for path in same)
        good = r.status == "ok" and r.files_unmodified == len(same) and unread
        said += f"; {count(r.files_unmodified, 'file')} unmodified and not read, {r.files_new + r.files_changed:,} read"
        return Row(step, f"{said} (edited, new, or in the folder that was renamed)", r.seconds, good)

    def _restore(self, repo: snapvault.Repository) -> Row:
        target = self._place / "restored"
        with long_operation(Output()) as control:
            r = snapvault.restore(repo, "demo@latest", target, verify=True, control=control)
        different = trees.compare(self._tree, self._inside(target))
        return Row("restore and compare", _verdict(different, count(r.files_written, "file")), r.seconds, not different)

    def _restore_older(self, repo: snapvault.Repository) -> Row:
        first = next(repo.snapshots())
        target = self._place / "restored-older"
        r = snapvault.restore(repo, first, target)
        different = trees.differences(self._before, trees.manifest(self._inside(target)))
        return Row(
            "restore the older state", _verdict(different, count(r.files_written, "file")), r.seconds, not different
        )

    def _inside(self, target: Path) -> Path:
        """Where the tree is in a target: absolute paths are recreated there."""
        return target / self._tree.relative_to("/")

    def _check(self, repo: snapvault.Repository) -> Row:
        with long_operation(Output()) as control:
            report = snapvault.check(repo, read_data=True, control=control)
        said = f"{count(report.packs_read, 'pack')}, {human_size(report.bytes_read)}: "
        said += "no damage" if report.status == "ok" else "DAMAGE where there is none"
        return Row("check all data", said, report.seconds, report.status == "ok")

    def _damaged(self) -> Path:
        return self._place / "damaged-repository"

    def _damage(self) -> Row:
        """One flipped bit in a copy of the repository: a check must see it and name what it touches."""
        shutil.copytree(self._store, self._damaged())
        pack = max(self._damaged().glob("packs/*/*"), key=lambda p: p.stat().st_size)
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
        with self._open(self._damaged()) as repo, long_operation(Output()) as control:
            report = snapvault.check(repo, read_data=True, control=control)
            latest = repo.snapshot("demo@latest").id
        self._lost = {p.path for p in report.lost if p.snapshot == latest}
        good = report.status == "damaged" and bool(self._lost)
        said = f"found; {count(len(self._lost), 'path')} named" if good else "NOT FOUND, or no path is named"
        return Row("flip one bit of a copy, check", said, report.seconds, good)

    def _restore_damaged(self) -> Row:
        """What is lost is named, as the check named it, and everything else comes back right."""
        target = self._place / "restored-damaged"
        with self._open(self._damaged()) as repo:
            r = snapvault.restore(repo, "demo@latest", target)
        named = {"/" + i.path.lstrip("/") for i in r.lost}
        found = self._inside(target)
        different = trees.differences(self._after, trees.manifest(found))
        wrong = {str(self._tree / p) for p in different if not (found / p).is_dir()}
        good = r.status == "damaged" and named == wrong == self._lost
        said = f"{count(len(named), 'path')} lost and named, the rest right"
        said = said if good else f"{len(named)} named, {len(self._lost)} by the check, {len(wrong)} WRONG"
        return Row("restore from the damaged copy", said, r.seconds, good)

    def _rescue(self) -> Row:
        """The program that every repository carries, and the printed key: no snapvault, password, key slot or index."""
        bare, target = self._place / "bare-repository", self._place / "rescued"
        shutil.copytree(self._store, bare, ignore=shutil.ignore_patterns("keyset", "slots", "index"))
        started = time.monotonic()
        program: list[str | Path] = [sys.executable, "-I", bare / "rescue-1.py", bare, "demo@latest", target]
        done = subprocess.run(
            [*program, "--key-file", self._key_file],
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
        seconds = time.monotonic() - started
        different = trees.compare(self._tree, self._inside(target)) if done.returncode == 0 else [done.stderr]
        return Row("rescue with the recovery key alone", _verdict(different, "rescue-1.py"), seconds, not different)

    def _open(self, store: Path) -> snapvault.Repository:
        return snapvault.open(str(store), password=self._password)


def _verdict(different: Iterable[str], what: str) -> str:
    found = sorted(different)
    if not found:
        return f"{what}: no difference"
    return f"{what}: {len(found)} DIFFERENCES: " + "; ".join(found[: trees.SHOWN])
