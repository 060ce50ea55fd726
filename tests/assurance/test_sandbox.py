"""A probe that misbehaves: it is ended with all that it started, says so in a sentence, and harms nothing else."""

import ctypes
import fcntl
import json
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import snapvault
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASS
from snapvault.assurance.sandbox import ProbeRun, Sandbox
from snapvault.assurance.scratch import LOCK, PREFIX, Scratch
from snapvault.foundation.errors import Cancelled, InvalidInput
from snapvault.foundation.events import Control, Event, Reporter
from snapvault.platform.isolation import wall_off
from tests.repos import python

NOBODY = 65534
Run = Callable[..., ProbeRun]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as found:
        yield found


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    with Scratch(tmp_path / "scratch", 20_000_000) as found:
        (found.folder("restored") / "file").write_text("content")
        yield found


@pytest.fixture
def run(sandbox: Sandbox, scratch: Scratch) -> Run:
    """Run a shell script as a probe."""

    def call(script: str, *, seconds: float = 60.0, **options: Any) -> ProbeRun:
        argv = ["sh", "-c", script]
        root = restored(scratch)
        return sandbox.run("command", {"argv": argv, **options}, root, scratch, seconds, Reporter("drill"))

    return call


def restored(scratch: Scratch) -> Path:
    """The one folder of that name."""
    (found,) = scratch.top.glob("restored-*")
    return found


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False


def test_one_that_behaves(run: Run, scratch: Scratch) -> None:
    found = run('cat file; echo "mine" > "$TMPDIR/file"; ls "$HOME"; echo changed > file; pwd')
    assert found.outcome.value == PASS and found.seconds > 0
    assert found.output.splitlines() == ["contentfile", str(restored(scratch))]
    assert set(found.held) == {"time", "processes", "disk", "writes", "network"}
    assert (restored(scratch) / "file").read_text() == "changed\n"
    assert sorted(p.name for p in scratch.top.iterdir()) == ["lock", restored(scratch).name]  # nothing of its own stays


def test_one_that_answers_for_the_process_it_runs_under(run: Run) -> None:
    """What it says is nobody's answer: not its own, and not that of the next one, either."""
    said = json.dumps({"outcome": PASS, "why": "", "facts": {}, "output": "", "held": [], "seconds": 0})
    for text in (f"{said}\\n{said}", "5", "nothing"):
        above = "$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)"
        found = run(f"printf '{text}\\n' > /proc/{above}/fd/1; sleep 1000")
        assert found.outcome.value == NOT_RUN and "somebody answered in place" in found.outcome.why
        assert run("exit 3").outcome.value == FAIL


def test_one_that_hangs(run: Run) -> None:
    found = run("trap '' TERM; sleep 1000 & wait", seconds=0.3)
    assert found.outcome.value == FAIL and "did not end within 0.3 s" in found.outcome.why


def test_one_that_leaves_processes(run: Run, scratch: Scratch) -> None:
    """Also those that left its session, and whose own parents have ended."""
    found = run("for i in 1 2; do setsid sh -c 'sleep 1000 & echo $! >> ../pids' & done; wait")
    assert found.outcome.value == FAIL
    assert found.outcome.why == "the probe left processes behind, which were ended: sleep, sleep"
    pids = [int(line) for line in (scratch.top / "pids").read_text().split()]
    assert len(pids) == 2 and not any(map(alive, pids))


def test_one_whose_processes_end_by_themselves(run: Run) -> None:
    assert run("(exec 1>&- 2>&-; read _ < /proc/self/stat) & exit 0").outcome.value == PASS


def test_one_that_writes_outside(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    target.write_text("as it was")
    shown = f"echo harm > {target}"
    found = run(shown)
    assert found.outcome.value == FAIL and "Read-only file system" in found.outcome.why
    # One that does not care is kept from it all the same.
    assert run(f"({shown}) 2> /dev/null; exit 0").outcome.value == PASS
    assert target.read_text() == "as it was"


@pytest.mark.parametrize(
    "script",
    [
        "i=0; while :; do i=$((i+1)); head -c 4000000 /dev/zero > $TMPDIR/$i; done",
        "yes > /dev/null & cat /dev/zero > a",
    ],
    ids=["many files", "one file"],
)
def test_one_that_fills_the_disk(run: Run, script: str) -> None:
    found = run(script)
    assert found.outcome.value == FAIL
    assert "filled its scratch place" in found.outcome.why or "File size limit exceeded" in found.outcome.why


def test_one_that_reaches_for_the_network(run: Run) -> None:
    """A restored service must not find the one that is running, and may listen where that does."""
    with subprocess.Popen(
        [sys.executable, "-c", "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler);"
         "print(s.server_port, flush=True); s.serve_forever()"], stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            ask = f"{sys.executable} -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 5)'"
            assert run(ask).outcome.value == FAIL
            reached = run(ask, network=True)
            assert reached.outcome.value == PASS and "network" not in reached.held
        finally:
            server.kill()


def test_no_network_in_the_words_of_an_inventory(run: Run) -> None:
    assert "network" in run("exit 0", network="false").held
    assert "network" not in run("exit 0", network="true").held


def test_one_that_kills_itself_or_crashes(run: Run) -> None:
    assert "was killed" in run("kill -9 $$").outcome.why
    found = run("kill -9 $PPID")  # the process that runs the probe
    assert found.outcome.value == FAIL and "by signal 9" in found.outcome.why
    assert run("true").outcome.value == PASS


def test_what_it_sees_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPVAULT_PASSWORD", "correct horse")
    assert "SNAPVAULT_PASSWORD" not in (out := run("env").output) and "SNAPVAULT_RESTORED" in out


def test_one_that_is_unknown_is_not_run(sandbox: Sandbox, scratch: Scratch) -> None:
    root = restored(scratch)
    found = sandbox.run("magic", {}, root, scratch, 60.0, Reporter("drill"))
    assert found.outcome.value == NOT_RUN and "magic" in found.outcome.why
    assert sandbox.run("command", {"argv": ["true"]}, root, scratch, 60.0, Reporter("drill")).outcome.value == PASS


def test_a_user_function_that_raises(sandbox: Sandbox, scratch: Scratch) -> None:
    root = restored(scratch)
    found = sandbox.run("python", {"entry": "os:rmdir"}, root, scratch, 60.0, Reporter("drill"))
    assert found.outcome.value == FAIL and "Directory not empty" in found.outcome.why


def test_what_a_user_function_prints_is_kept(sandbox: Sandbox, scratch: Scratch) -> None:
    root = restored(scratch)
    found = sandbox.run("python", {"entry": "builtins:print"}, root, scratch, 60.0, Reporter("drill"))
    assert (found.outcome.value, found.output) == (PASS, str(root))


def test_a_drill_that_is_cancelled_ends_its_probe(scratch: Scratch) -> None:
    cancel, pids = threading.Event(), scratch.top / "pids"

    def stop(event: Event) -> None:
        cancel.set()

    with Sandbox() as sandbox:
        reporter = Reporter("drill", Control(progress=stop, cancel=cancel))
        os.mkfifo(pids)
        script = f"echo $$ > {pids}; sleep 1000"
        listener = threading.Thread(target=lambda: (found.append(pids.read_text()), cancel.set()))
        found: list[str] = []
        listener.start()
        with pytest.raises(Cancelled):
            sandbox.run("command", {"argv": ["sh", "-c", script]}, restored(scratch), scratch, 1000.0, reporter)
        listener.join()
    assert not alive(int(found[0]))


KILLED = """
import sys, pathlib
from snapvault.assurance.sandbox import Sandbox
from snapvault.assurance.scratch import Scratch
from snapvault.foundation.events import Reporter
scratch = Scratch(pathlib.Path(sys.argv[1]), None)
argv = ["sh", "-c", "setsid sleep 1000 & echo $$ $! > " + sys.argv[2] + "; wait"]
Sandbox().run("command", {"argv": argv}, scratch.folder("restored"), scratch, 1000.0, Reporter("drill"))
"""


def test_a_drill_that_is_killed_leaves_no_process_and_the_next_one_its_folder(tmp_path: Path) -> None:
    base, said = tmp_path / "scratch", tmp_path / "scratch" / "said"
    base.mkdir()
    os.mkfifo(said)
    env = {**os.environ, "PYTHONPATH": str(Path(snapvault.__file__).parents[1])}
    # The fifo lies outside of the drill's own folder, which the probe may not write to: an open pipe is no file.
    with subprocess.Popen([sys.executable, "-c", KILLED, base, said], env=env) as drill:
        pids = [int(word) for word in said.read_text().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        drill.kill()
    for fd in watched:
        assert select.select([fd], [], [], 60)[0], "a process of the probe lives on"
        os.close(fd)
    said.unlink()
    (left,) = base.iterdir()
    with Scratch(base, None) as scratch:
        assert [p.name for p in base.iterdir()] == [scratch.top.name] != [left.name]
    assert list(base.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    with Scratch(tmp_path, None) as one, Scratch(tmp_path, None) as two:
        assert one.top.is_dir() and two.top.is_dir()
    (tmp_path / f"{PREFIX}0123").mkdir()  # not ours to judge: it has no lock
    Scratch(tmp_path, None).close()
    assert [p.name for p in tmp_path.iterdir()] == [f"{PREFIX}0123"]


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another drill begins when it is there, and not yet locked."""
    flock, others = fcntl.flock, list[threading.Thread]()

    def late(fd: int, flags: int) -> None:
        if not others and os.readlink(f"/proc/self/fd/{fd}").endswith(f"/{LOCK}"):
            others.append(threading.Thread(target=lambda: Scratch(tmp_path, None).close()))
            others[0].start()
            others[0].join(0.3)  # it cannot end before this one is made
        flock(fd, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    with Scratch(tmp_path, None) as scratch:
        others[0].join()
        assert scratch.folder("restored").is_dir()


def test_a_scratch_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="file"):
        Scratch(tmp_path / "file", None)


def test_others_see_nothing_of_what_is_restored(tmp_path: Path) -> None:
    with Scratch(tmp_path, None) as scratch:
        assert stat.S_IMODE(scratch.folder("restored").stat().st_mode) == 0o700
        assert stat.S_IMODE(scratch.top.stat().st_mode) == 0o711


def test_without_root_the_walls_are_the_same(tmp_path: Path) -> None:
    """By a namespace of users; where the system permits none, the evidence says that writes were not held."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    work = tmp_path / "scratch" / "work"
    work.mkdir(parents=True)
    for path in (work, work.parent):
        os.chown(path, NOBODY, NOBODY)
    (tmp_path / "outside").mkdir(mode=0o777)
    (tmp_path / "outside").chmod(0o777)
    child = os.fork()
    if child == 0:
        os._exit(_as_nobody(tmp_path))
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    permitted = subprocess.run([*user, "unshare", "-Urmn", "true"], check=False, stderr=subprocess.DEVNULL)
    expected = 0 if permitted.returncode == 0 else 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected


def _as_nobody(place: Path) -> int:
    """0: walled off; 1: not permitted; 2: the walls leak."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as for a process that was started by nobody
    try:
        cover = wall_off(place / "scratch", place / "scratch" / "work", network=False)
    except OSError:
        return 1
    (cover / "mine").write_text("x")
    (place / "scratch" / "mine").write_text("x")
    try:
        (place / "outside" / "harm").write_text("x")
    except OSError:
        return 0 if (place / "scratch/work/mine").exists() else 2
    return 2


HELD = """
import json, pathlib, sys
from snapvault.assurance.sandbox import Sandbox
from snapvault.assurance.scratch import Scratch
from snapvault.foundation.events import Reporter
with Scratch(pathlib.Path(sys.argv[1]), None) as scratch, Sandbox() as sandbox:
    argv = ["sh", "-c", "echo mine > $TMPDIR/mine && echo $TMPDIR"]
    found = sandbox.run("command", {"argv": argv}, scratch.folder("restored"), scratch, 60.0, Reporter("drill"))
    print(json.dumps([found.outcome.value, found.output.startswith(str(scratch.top / "work-")), sorted(found.held)]))
"""


def test_where_walls_are_not_permitted_the_report_says_so(tmp_path: Path) -> None:
    bare = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")  # root, but not for mounts
    assert json.loads(python(HELD, tmp_path, before=bare)) == [PASS, True, ["disk", "processes", "time"]]


def test_a_caller_who_ignores_its_children(scratch: Scratch) -> None:
    """That is passed on to a process that waits for its own."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Sandbox() as sandbox:
            root = restored(scratch)
            found = sandbox.run("command", {"argv": ["true"]}, root, scratch, 60.0, Reporter("drill"))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert found.outcome.value == PASS
