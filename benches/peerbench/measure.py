"""A command's wall time, CPU time and memory, and the state of the machine before it."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 1 << 20
_TOLD = 2000  # characters of an error output that are kept


@dataclass(frozen=True)
class Sample:
    """One run of a command, with all processes that it started and waited for.

    Seconds; ``peak`` is the resident memory in bytes of the biggest single process, not the sum of several.
    """

    wall: float
    user: float
    system: float
    peak: int
    code: int
    output: str

    @property
    def cpu(self) -> float:
        return self.user + self.system


def run(command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path | None = None) -> Sample:
    """Run a command to its end; what it prints goes to the file ``log``."""
    with log.open("wb") as out:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(env), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so Popen must not look for it
    output = log.read_text(errors="replace")[-_TOLD:]
    return Sample(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024, process.returncode, output)


def own_peak() -> int:
    """Peak memory of this process, bytes: Linux hands it on to children, so no smaller peak of theirs can be seen."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def warm(folder: Path) -> None:
    """Read every file, so that the page cache has it (as far as it is large enough)."""
    buffer = bytearray(_BLOCK)
    for path in files_of(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def files_of(folder: Path) -> list[str]:
    """Regular files below a folder, in a fixed order."""
    found = []
    for here, folders, files in os.walk(folder):
        folders.sort()
        found += [path for path in (os.path.join(here, f) for f in sorted(files)) if not os.path.islink(path)]
    return found


def bytes_of(folder: Path) -> int:
    """Sum of the lengths of all files below a folder."""
    return sum(os.lstat(path).st_size for path in files_of(folder))


def machine(work: Path) -> dict[str, object]:
    """What the figures depend on."""
    model = memory = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory = f"{int(line.split()[1]) / 1e6:.1f} GB"
    asked = ["df", "--output=fstype", str(work)]
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file system": subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[-1],
        "load before": round(os.getloadavg()[0], 2),
    }
