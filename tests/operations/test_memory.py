"""Memory does not grow with the data."""

import json
import random
from pathlib import Path

import pytest
from repos import python

MEGABYTES = 250
pytestmark = pytest.mark.timeout(900)  # of a disk that is busy: some gigabytes go to it

WORK = """
import json, sys
import snapvault
repository, source, out, what = sys.argv[1:]
KEY = dict(keys=lambda: bytes(range(32)))
if what == "backup":
    repo = snapvault.init(repository, **KEY).repository
    done = snapvault.backup(repo, source, dataset="d")
elif what == "again":
    with open(source + "/large 0", "r+b") as f:  # a little of every megabyte is new
        for at in range(0, 300 << 20, 1 << 20):
            f.seek(at)
            f.write(b"changed" + str(at).encode())
    done = snapvault.backup(snapvault.open(repository, **KEY), source, dataset="d")
elif what == "check":
    done = snapvault.check(snapvault.open(repository, **KEY), read_data=True)
else:
    done = snapvault.restore(snapvault.open(repository, **KEY), "latest", out, verify=what == "over")
with open("/proc/self/status") as f:  # not getrusage: its peak counts what this process was forked from
    peak = next(int(line.split()[1]) >> 10 for line in f if line.startswith("VmHWM"))
print(json.dumps([done.status, peak]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 MB that nothing makes smaller, and 30,000 little files in 3,000 folders."""
    base = tmp_path_factory.mktemp("memory")
    for i in range(2):
        with open(_made(base / "src") / f"large {i}", "wb") as f:
            content = random.Random(i)
            for _ in range(300):
                f.write(content.randbytes(1 << 20))
    for i in range(30_000):
        (_made(base / f"src/{i // 100}/{i // 10}") / f"{i}").write_bytes(b"%d" % i * 20)
    return base


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("what", ["backup", "again", "check", "restore", "over"])
def test_it_stays_bounded(what: str, place: Path) -> None:
    """First and second backup, check, restore into nothing and over what is there with all of it verified."""
    status, peak = json.loads(python(WORK, place / "repo", place / "src", place / "out", what))
    assert status == "ok"
    assert peak < MEGABYTES, f"{what} took {peak} MB"
