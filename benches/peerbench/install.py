"""Getting the tools: system packages from apt, the Python ones from PyPI, each into its own virtual environment."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from peerbench.tools import ALL, Tool

_SYSTEM = {"rsync": "rsync", "mkfs.ext4": "e2fsprogs", "debugfs": "e2fsprogs", "tar": "tar"}
_OF_TOOL = {"restic": {"restic": "restic"}, "pipe": {"zstd": "zstd", "openssl": "openssl", "bash": "bash"}}
_BORG_BUILD = (
    "gcc",
    "pkg-config",
    "python3-dev",
    "libacl1-dev",
    "liblz4-dev",
    "libssl-dev",
    "libxxhash-dev",
    "libzstd-dev",
)
_NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")
_SBIN = ":/usr/sbin:/sbin"


def tools(names: Iterable[str], work: Path, snapvault: str | None) -> list[Tool]:
    """The tools by name, installed where they are missing.  ``snapvault``: a command to use instead of the checkout."""
    names = list(names)
    commands = dict(_SYSTEM)
    for name in names:
        commands.update(_OF_TOOL.get(name, {}))
    path = os.environ["PATH"] + _SBIN
    _packages({package for command, package in commands.items() if shutil.which(command, path=path) is None})
    return [ALL[name](_program(name, work, snapvault)) for name in names]


def _program(name: str, work: Path, snapvault: str | None) -> list[str]:
    if name == "snapvault":
        return shlex.split(snapvault) if snapvault else [_checkout(work)]
    if name in ("borg", "replicat"):
        return [_from_pypi(name, {"borg": "borgbackup"}.get(name, name), work)]
    return ["bash" if name == "pipe" else name]


def _packages(missing: set[str]) -> None:
    if not missing:
        return
    wanted = " ".join(sorted(missing))
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"missing system packages: {wanted}; install them, or leave their tools out with --tools")
    print(f"installing {wanted}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], env=env, check=True)
    command = ["apt-get", "-qq", "install", "--no-install-recommends", "-y", *sorted(missing)]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def _checkout(work: Path) -> str:
    """snapvault as a user gets it: built and installed from a copy of the checkout that this bench stands in."""
    place, copy = work / "venv-snapvault", work / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(Path(__file__).resolve().parents[2], copy, ignore=_NOT_SOURCE)  # a build leaves files beside it
    print("installing snapvault from the checkout", flush=True)
    _pip(place, str(copy))
    _pip(place, "--force-reinstall", "--no-deps", str(copy))  # the version may be that of an older state
    return str(place / "bin" / "snapvault")


def _from_pypi(name: str, package: str, work: Path) -> str:
    program = work / f"venv-{name}" / "bin" / name
    if program.exists():
        return str(program)
    if name == "borg":  # there are no wheels of it
        query = ["dpkg-query", "-W", "-f", "${Package}\n", *_BORG_BUILD]
        there = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
        _packages(set(_BORG_BUILD).difference(there))
    print(f"installing {package} from PyPI", flush=True)
    _pip(program.parents[1], package)
    return str(program)


def _pip(place: Path, *args: str) -> None:
    if not (place / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    subprocess.run([place / "bin" / "python", "-m", "pip", "install", "--quiet", *args], check=True)


def versions(found: list[Tool]) -> dict[str, dict[str, str]]:
    """What each tool says its version is, and how it is used."""
    told = {}
    for tool in found:
        done = subprocess.run(tool.version(), capture_output=True, text=True, check=True)
        told[tool.name] = {"version": "; ".join(done.stdout.split("\n")).strip("; "), "how": tool.how}
    return told
