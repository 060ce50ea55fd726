"""The corpus of small files: Debian's linux-source-6.1 in two versions, fetched and unpacked by apt and dpkg."""

import shutil
import subprocess
from pathlib import Path

from peerbench.trees import edit_tree

PACKAGE = "linux-source-6.1"
VERSION = "6.1.170-3"


def kernel(first: Path, second: Path) -> str:
    """Version 6.1.170-3 and the newest; where just one can be had, it and an edited copy, and the recipe says so."""
    known = available()
    if not known:
        raise SystemExit(f"apt knows no {PACKAGE}: add Debian 12 to its sources, or use --corpus DIR")
    before = VERSION if VERSION in known else known[-1]
    if before != VERSION:
        print(f"{PACKAGE} {VERSION} cannot be had here; the first version is {before}", flush=True)
    unpack(before, first)
    if known[0] == before:
        print(f"only {before} of {PACKAGE} can be had here; the second version is a seeded edit of it", flush=True)
        edit_tree(first, second)
        return f"{PACKAGE} {before}, then 5 % of the files edited, 1 % removed, 1 % new"
    unpack(known[0], second)
    return f"{PACKAGE} {before}, then {known[0]}"


def available() -> list[str]:
    """Versions that apt can fetch, newest first."""
    if shutil.which("apt-cache") is None:
        return []
    done = subprocess.run(["apt-cache", "madison", PACKAGE], capture_output=True, text=True, check=False)
    columns = [line.split("|") for line in done.stdout.splitlines()]
    return list(dict.fromkeys(c[1].strip() for c in columns if len(c) == 3 and c[2].rstrip().endswith("Packages")))


def unpack(version: str, target: Path) -> None:
    """Fetch a version of the package (kept beside the corpora) and unpack the tree that is in it."""
    fetched = target.parent.parent / "packages"
    fetched.mkdir(exist_ok=True)
    print(f"fetching {PACKAGE} {version}", flush=True)
    # It leaves a file alone that is whole already, by the hash in the archive's index.
    subprocess.run(["apt-get", "-qq", "download", f"{PACKAGE}={version}"], cwd=fetched, check=True)
    target.mkdir()
    inner = f"./usr/src/{PACKAGE}.tar.xz"
    pipe = f'dpkg-deb --fsys-tarfile "$0" | tar -xO {inner} | tar -xJ --no-same-owner --strip-components=1 -C "$1"'
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipe, str(fetched / f"{PACKAGE}_{version}_all.deb"), str(target)], check=True
    )
