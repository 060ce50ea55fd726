"""The process that probes run under: their time, their processes and their disk are watched from here.

A line of JSON on standard input is a probe to run, and one on standard output is how it went.  Each runs in a process
that is forked off and ended with all that it started: this process adopts orphans.  When standard input ends, since
whoever started this process has ended or wants no more, everything ends.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from snapvault.assurance.outcome import FAIL, NOT_RUN, PASS
from snapvault.assurance.probes import NotRun, ProbeFailed, known, prepared
from snapvault.foundation.errors import InvalidInput
from snapvault.platform.disk import Quota
from snapvault.platform.isolation import adopt_orphans, descendants, name_of, wall_off

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TICK = 0.1  # seconds between two looks at clock, disk and standard input
SETTLE = 1.0  # seconds in which what the probe started may end by itself
PATIENCE = 30.0  # seconds in which what is killed must be gone
OUTPUT = 2000  # bytes of the end of what it wrote
_CHILD = {signal.SIGCHLD}

# token (comes back with the answer), kind, options, timeout (seconds); root, scratch, work, output (paths); quota, used
# (bytes)
Task = dict[str, Any]


def main() -> None:
    """Run probes until nobody asks for one."""
    adopt_orphans()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores its children passes that on
    signal.pthread_sigmask(signal.SIG_BLOCK, _CHILD)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps({**_run(task), "token": task["token"]}), flush=True)


def _run(task: Task) -> dict[str, Any]:
    try:
        prepared(task["kind"], task["options"])  # what it imports is imported once
    except InvalidInput as e:
        return {"outcome": NOT_RUN, "why": str(e), "facts": {}, "output": "", "seconds": 0.0, "held": []}
    walled = _permits_walls(task["scratch"], task["work"], _network(task))
    answer, say = os.pipe()
    worker = os.fork()
    if worker == 0:
        _work(task, say, walled=walled)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)  # it has answered; taking the interpreter down in good order takes longer than most probes
    os.close(say)
    began = time.monotonic()
    status, why = _Watch(task, worker).wait()
    seconds = time.monotonic() - began
    left = _leftovers()
    stayed = _end_all()
    with os.fdopen(answer, "rb") as f:
        said = f.read()
    held = ["time", "processes", "disk", *(["writes"] if walled else [])]
    held += ["network"] if walled and not _network(task) else []
    return {**_verdict(task, said, status, why, left, stayed), "seconds": seconds, "held": held}


# -- the probe's own process ----------------------------------------------------------------------------------------


def _work(task: Task, say: int, *, walled: bool) -> None:
    """The probe.  An error that nobody expected ends this process with its trace, which is what it wrote last."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CHILD)
    work = _confine(task, walled=walled)
    os.environ.clear()
    os.environ.update(PATH=PATH, LC_ALL="C.UTF-8", HOME=str(work), TMPDIR=str(work), SNAPVAULT_RESTORED=task["root"])
    os.chdir(task["root"])
    try:
        said = {"outcome": PASS, "why": "", "facts": prepared(task["kind"], task["options"])(Path(task["root"]))}
    except ProbeFailed as e:
        said = {"outcome": FAIL, "why": str(e), "facts": {}}
    except NotRun as e:
        said = {"outcome": NOT_RUN, "why": str(e), "facts": {}}
    os.write(say, json.dumps(said).encode())


def _confine(task: Task, *, walled: bool) -> Path:
    """Limits, and where it may write; where its own files go."""
    output = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for fd, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, target)
    largest = max(0, task["quota"] - task["used"])
    for limit, most in ((resource.RLIMIT_FSIZE, largest), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    work = Path(task["work"])
    return wall_off(Path(task["scratch"]), work, network=_network(task)) if walled else work


def _network(task: Task) -> bool:
    return known(task["kind"], task["options"]).network


_tried: dict[bool, bool] = {}  # by whether the network is to be reached


def _permits_walls(scratch: str, work: str, network: bool) -> bool:
    """Tried once, in a process that ends then."""
    if network not in _tried:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                wall_off(Path(scratch), Path(work), network=network)
                os._exit(0)
            os._exit(1)
        _tried[network] = os.waitpid(child, 0)[1] == 0
    return _tried[network]


# -- watching it ----------------------------------------------------------------------------------------------------


class _Watch:
    """Waits for the probe, and ends it when its time or its disk is used up."""

    def __init__(self, task: Task, worker: int) -> None:
        self._task, self._worker = task, worker
        self._deadline = time.monotonic() + task["timeout"]
        self._quota = Quota(task["scratch"], task["quota"], task["used"])

    def wait(self) -> tuple[int | None, str]:
        """The exit status of the probe, None if it was ended; and why that was."""
        while True:
            signal.sigtimedwait(_CHILD, min(TICK, max(0.0, self._deadline - time.monotonic())))
            while (ended := _reaped()) is not None:
                if ended[0] == self._worker:
                    return os.waitstatus_to_exitcode(ended[1]), ""
            if select.select([sys.stdin], [], [], 0)[0]:  # nobody waits for an answer any more
                _end_all()
                sys.exit(1)
            why = self._used_up()
            if why:
                _end_all()
                return None, why

    def _used_up(self) -> str:
        if time.monotonic() >= self._deadline:
            return f"the probe did not end within {self._task['timeout']:g} s and was ended"
        if self._quota.exceeded():
            return f"the probe filled its scratch place ({self._task['quota']:,} bytes) and was ended"
        return ""


def _reaped() -> tuple[int, int] | None:
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(-1, os.WNOHANG)
        return (pid, status) if pid else None
    return None


def _leftovers() -> list[str]:
    """The names of processes that the probe left behind, once they had time to end."""
    until = time.monotonic() + SETTLE
    while not _alone() and time.monotonic() < until:
        signal.sigtimedwait(_CHILD, TICK)
    return [] if _alone() else sorted(name_of(process) for process in descendants(os.getpid()))


def _end_all() -> list[str]:
    """Until nothing is left, however fast it multiplies: what is stopped starts nothing.  Names of what stays."""
    until, left = time.monotonic() + PATIENCE, list[int]()
    while not _alone() and time.monotonic() < until:
        left = descendants(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, number)
    return [] if _alone() else sorted(name_of(process) for process in left)


def _alone() -> bool:
    """Whether there are no children any more; those that ended are let go."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _verdict(
    task: Task, said: bytes, status: int | None, why: str, left: list[str], stayed: list[str]
) -> dict[str, Any]:
    output = _tail(task["output"])
    last = (output.splitlines() or [""])[-1]
    report: dict[str, Any] = {"outcome": FAIL, "why": why, "facts": {}, "output": output}
    if not why and status == 0 and said:
        report |= json.loads(said)
    elif not why:
        how = f"with exit status {status}" if status is not None and status >= 0 else f"by signal {-(status or 0)}"
        report["why"] = f"the probe ended {how}"
    if report["outcome"] != PASS and last:
        report["why"] += f" (it wrote: {last[:300]})"
    if left and report["outcome"] == PASS:
        report |= {"outcome": FAIL, "why": f"the probe left processes behind, which were ended: {', '.join(left)}"}
    if stayed:
        report |= {"outcome": FAIL, "why": f"the probe left processes that cannot be ended: {', '.join(stayed)}"}
    return report


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - OUTPUT))
            return f.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
