"""The tree of the demo: where it comes from, how it changes, and how two of them are compared without snapvault."""

import hashlib
import os
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

Manifest = dict[str, str]  # path -> what is there

SHOWN = 5  # differences that are named


def default_source() -> Path:
    """The Python standard library: a few thousand real files that every machine with Python has."""
    return Path(sysconfig.get_path("stdlib"))


def copy_tree(source: Path, target: Path) -> None:
    """A copy to work on; links as links, and without what others installed into the standard library."""
    ignore = shutil.ignore_patterns("site-packages", "dist-packages") if source == default_source() else None
    shutil.copytree(source, target, symlinks=True, ignore=ignore)


def change(tree: Path) -> None:
    """A day of work: edits, a new file, a copy, a rename, files that go."""
    files = sorted(p for p in tree.rglob("*") if p.is_file() and not p.is_symlink())
    for path in files[::50]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
        with path.open("ab") as f:
            f.write(b"\n# edited\n")
    for path in files[25::200]:
        path.unlink()
    largest = max((p for p in files if p.exists()), key=lambda p: p.stat().st_size)
    shutil.copy2(largest, tree / "a copy of the largest file")
    (tree / "new.bin").write_bytes(os.urandom(1 << 20))
    folder = max((p for p in tree.iterdir() if p.is_dir()), key=lambda p: len(list(p.iterdir())), default=None)
    if folder is not None:
        folder.rename(folder.with_name(folder.name + " renamed"))


def manifest(tree: Path) -> Manifest:
    """Kind, mode, time and SHA-256 of everything in a tree."""
    found = {}
    for path in sorted(tree.rglob("*")):
        st = path.lstat()
        if stat.S_ISREG(st.st_mode):
            with path.open("rb") as f:
                content = hashlib.file_digest(f, "sha256").hexdigest()
        else:
            content = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(tree))] = f"{st.st_mode:o} {st.st_mtime_ns} {content}"
    return found


def differences(a: Manifest, b: Manifest) -> set[str]:
    """Paths that are not the same in both."""
    return {path for path in a.keys() | b.keys() if a.get(path) != b.get(path)}


def files_in_both(a: Manifest, b: Manifest) -> list[str]:
    """The regular files that are the same in both."""
    return [path for path, what in a.items() if what == b.get(path) and stat.S_ISREG(int(what.split()[0], 8))]


def referee() -> str:
    """Who compares two trees."""
    return "rsync -aHAX --checksum" if shutil.which("rsync") else "SHA-256, mode and time of each file"


def compare(expected: Path, found: Path) -> list[str]:
    """What differs, by ``referee``; empty: nothing."""
    if not shutil.which("rsync"):
        return sorted(differences(manifest(expected), manifest(found)))
    flags = ["-aHAXn", "--checksum", "--delete", "--itemize-changes"]
    done = subprocess.run(
        ["rsync", *flags, f"{expected}/", f"{found}/"],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    return done.stdout.splitlines() + done.stderr.splitlines()
