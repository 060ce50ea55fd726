"""``python -m snapvault.demo``: the main job on real input, each claim checked; see ``--help``.

Exits with 1 if anything is not as promised.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

import snapvault

T = TypeVar("T")

PASSWORD = "demo"
FILES_MAX = 20_000


class Broken(Exception):
    """Something was not as promised."""


class Demo:
    """The story; every step prints a line with its time."""

    def __init__(self, source: Path, scratch: Path, console: Console) -> None:
        self._source, self._scratch, self._console = source, scratch, console
        self._tree, self._repo = scratch / "tree", scratch / "repository"
        self._table = Table("step", "files", "data", "stored", "seconds", box=None)

    def run(self) -> None:
        """All steps, in order; Broken."""
        self._step("copy a real tree", self._copy)
        made = snapvault.init(str(self._repo), password=PASSWORD)
        (self._scratch / "recovery.key").write_text(made.recovery_key + "\n")
        with made.repository as repo:
            first = self._backup(repo, "first backup")
            self._step("change the tree", self._change)
            second = self._backup(repo, "second backup, of what changed")
            self._require(second.bytes_read < first.bytes_read / 2, "unchanged files were read again")
            self._restore(repo, second.snapshot)
            report = self._step("check all data", lambda: snapvault.check(repo, read_data=True))
            self._require(report.status == "ok", "the check found damage where there is none")
        self._damage(second.snapshot)
        self._recover(second.snapshot)
        self._console.print(self._table)
        total = sum(f.stat().st_size for f in self._repo.rglob("*") if f.is_file())
        ratio = (first.bytes_total + second.bytes_total) / total
        self._console.print(
            f"\nTwo snapshots of {_mb(first.bytes_total)} and {_mb(second.bytes_total)} take {_mb(total)} "
            f"({ratio:.1f} times less), and both came back to life."
        )

    # -- steps --------------------------------------------------------------------------------------------------

    def _copy(self) -> None:
        """A part of the source that a demo can afford, as it is."""
        count = 0

        def some(folder: str, names: list[str]) -> set[str]:
            nonlocal count
            count += len(names)
            left_out = {n for n in names if n in ("__pycache__", "site-packages")}
            return set(names) if count > FILES_MAX else left_out

        shutil.copytree(self._source, self._tree, symlinks=True, ignore=some)

    def _change(self) -> None:
        files = sorted(p for p in self._tree.rglob("*") if p.is_file() and not p.is_symlink())
        for path in files[::50]:
            with path.open("a") as f:
                f.write("\n# changed\n")
        for path in files[25::500]:
            path.unlink()
        (self._tree / "new").mkdir()
        (self._tree / "new" / "random").write_bytes(os.urandom(1 << 20))

    def _backup(self, repo: snapvault.Repository, title: str) -> snapvault.BackupResult:
        with self._progress(title) as control:
            result = snapvault.backup(repo, self._tree, dataset="demo", control=control)
        self._row(
            title, result.files_new + result.files_changed, result.bytes_read, result.bytes_stored, result.seconds
        )
        self._require(result.status == "ok", f"the backup is {result.status}: {result.issues[:3]}")
        return result

    def _restore(self, repo: snapvault.Repository, snapshot: str) -> None:
        target = self._scratch / "restored"
        with self._progress("restore") as control:
            result = snapvault.restore(repo, snapshot, target, control=control)
        self._row("restore", result.files_written, result.bytes_written, 0, result.seconds)
        self._step("compare with the source", lambda: self._compare(target / str(self._tree).lstrip("/")))

    def _compare(self, target: Path) -> None:
        """By rsync where it is installed: a referee that is not ours."""
        if shutil.which("rsync"):
            command = [
                "rsync",
                "-aHAXn" if os.geteuid() == 0 else "-aHn",
                "--checksum",
                "--delete",
                "--itemize-changes",
            ]
            done = subprocess.run(
                [*command, f"{self._tree}/", f"{target}/"], capture_output=True, text=True, check=True
            )
            self._require(not done.stdout, f"the restored tree differs:\n{done.stdout[:500]}")
            return
        filecmp.clear_cache()
        todo = [filecmp.dircmp(self._tree, target)]
        while todo:
            at = todo.pop()
            wrong = at.left_only + at.right_only + at.diff_files + at.funny_files
            self._require(not wrong, f"the restored tree differs in {at.left}: {wrong[:5]}")
            todo += at.subdirs.values()

    def _damage(self, snapshot: str) -> None:
        """Flip one bit in a copy of the repository: it must be found, and named."""
        copy = self._scratch / "damaged"
        shutil.copytree(self._repo, copy)
        victim = max((p for p in (copy / "packs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        with snapvault.open(str(copy), password=PASSWORD) as repo:
            report = self._step("damage a copy, check it", lambda: snapvault.check(repo, read_data=True))
            result = snapvault.restore(repo, snapshot, self._scratch / "from damaged")
        self._require(report.status == "damaged", "a flipped bit was not found")
        self._require(bool(report.lost), "the damage was found, but no path was named")
        said = {p.path for p in report.lost if p.snapshot == snapshot}
        lost = {"/" + i.path.lstrip("/") for i in result.lost}
        self._require(said == lost, "check and restore disagree about what is lost")
        self._console.print(
            f"  one flipped bit: {len(said)} paths named, {result.files_written} files restored beside them"
        )

    def _recover(self, snapshot: str) -> None:
        """The printed key and the repository's own program, without snapvault, keys or index."""
        bare = self._scratch / "bare"
        shutil.copytree(self._repo, bare)
        for name in ("keyset", "slots", "index"):
            shutil.rmtree(bare / name)
        target = self._scratch / "rescued"
        program = [sys.executable, str(bare / "rescue-1.py"), str(bare), snapshot, str(target)]
        key = ["--key-file", str(self._scratch / "recovery.key")]

        def rescue() -> None:
            done = subprocess.run([*program, *key], capture_output=True, text=True, check=False)
            self._require(done.returncode == 0, f"the rescue program failed: {done.stderr[-500:]}")

        self._step("rescue with the printed key alone", rescue)
        self._compare(target / str(self._tree).lstrip("/"))

    # -- telling ------------------------------------------------------------------------------------------------

    def _step(self, title: str, work: Callable[[], T]) -> T:
        started = time.monotonic()
        with self._console.status(title):
            result = work()
        self._row(title, 0, 0, 0, time.monotonic() - started)
        return result

    def _row(self, title: str, files: int, data: int, stored: int, seconds: float) -> None:
        self._console.print(f"[green]done[/] {title}", highlight=False)
        cells = (f"{files:,}" if files else "", _mb(data) if data else "", _mb(stored) if stored else "")
        self._table.add_row(title, *cells, f"{seconds:.1f}")

    @contextmanager
    def _progress(self, title: str) -> Iterator[snapvault.Control]:
        columns = (TextColumn(title), BarColumn(), TextColumn("{task.completed:,} files"))
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield snapvault.Control(progress=lambda event: bar.update(task, completed=event.done))

    def _require(self, good: bool, message: str) -> None:
        if not good:
            raise Broken(message)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def main() -> int:
    """Run the demo in a scratch folder."""
    parser = argparse.ArgumentParser(
        prog="python -m snapvault.demo", description="Back up, change, restore, damage, rescue."
    )
    parser.add_argument("--source", type=Path, default=Path(sysconfig.get_path("stdlib")), help="the tree to back up")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder, and leave it")
    options = parser.parse_args()
    console = Console()
    scratch = options.keep or Path(tempfile.mkdtemp(prefix="snapvault-demo-"))
    try:
        scratch.mkdir(parents=True, exist_ok=options.keep is None)
        Demo(options.source.resolve(), scratch.resolve(), console).run()
    except (Broken, snapvault.SnapvaultError, OSError, subprocess.SubprocessError) as e:
        console.print(f"[red]not as promised:[/] {e}", highlight=False)
        return 1
    finally:
        if options.keep is None:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
