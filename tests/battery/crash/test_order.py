"""What a real backup asks of the kernel, traced: everything is on the disk before anything that leans on it."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from battery import model
from battery.process import Place

_LINE = re.compile(r"^(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))$")
_PATH = re.compile(r"<(/[^>]*)>")
_NAME = re.compile(r'"([^"]*)"')


@dataclass
class Traced:
    """A system call: when it began and when it had ended, as lines of the trace."""

    name: str
    text: str
    began: int
    ended: int = -1

    @property
    def path(self) -> str:
        """The file or folder behind the descriptor."""
        found = _PATH.search(self.text)
        return found.group(1) if found else ""

    @property
    def names(self) -> list[str]:
        """linkat: the name before and the new one, with their folder."""
        return [
            f"{folder}/{name}" for folder, name in zip(_PATH.findall(self.text), _NAME.findall(self.text), strict=True)
        ]


def read_trace(log: Path) -> list[Traced]:
    """All calls that succeeded; with several threads one may begin and end on different lines."""
    calls: list[Traced] = []
    running: dict[str, Traced] = {}
    for number, line in enumerate(log.read_text().splitlines()):
        match = _LINE.match(line)
        if match is None:
            continue
        thread, name, text, _, rest = match.groups()
        if name is not None:
            running[thread] = call = Traced(name, text, number)
        else:
            call, text = running[thread], rest
        if "<unfinished" not in text:
            call.ended = number
            if " = -1 " not in text:
                calls.append(call)
    return calls


class Order:
    """Questions about one traced run in a repository."""

    def __init__(self, place: Place, log: Path) -> None:
        self.root, calls = str(place.repository), read_trace(log)
        self.syncs = [c for c in calls if c.name == "fsync"]
        self.writes = [c for c in calls if c.name in ("writev", "write", "pwrite64")]
        self.links = [c for c in calls if c.name == "linkat" and self.root in c.text]
        self.renames = [c for c in calls if c.name.startswith("rename") and self.root in c.text]
        self.folders = [c for c in calls if c.name == "mkdir" and f'"{self.root}/' in c.text]

    def puts(self, prefix: str) -> list[Traced]:
        return [c for c in self.links if c.names[1].startswith(f"{self.root}/{prefix}")]

    def durable_at(self, link: Traced) -> int:
        """The line at which the new name was durable: the end of the first fsync of its folder that began after it."""
        folder = link.names[1].rpartition("/")[0]
        ends = [s.ended for s in self.syncs if s.path == folder and s.began > link.ended]
        assert ends, f"the folder of {link.names[1]} was not synced"
        return min(ends)

    def assert_each_put_is_durable(self) -> None:
        """Written, synced, linked; then its folder."""
        assert self.links
        for link in self.links:
            temporary = link.names[0]
            written = [w for w in self.writes if w.path == temporary]
            synced = [s for s in self.syncs if s.path == temporary]
            assert written and len(synced) == 1, link.names
            assert max(w.ended for w in written) < synced[0].began and synced[0].ended < link.began, link.names
            self.durable_at(link)
        for made in self.folders:
            path = _NAME.findall(made.text)[0]
            parent = path.rpartition("/")[0]
            assert any(s.path == parent and s.began > made.ended for s in self.syncs), f"{path} is not durable"

    def assert_before(self, first: str, then: str) -> None:
        """Every object below one prefix was durable before any below the other got its name."""
        earlier, later = self.puts(first), self.puts(then)
        assert earlier and later, (first, then)
        assert max(self.durable_at(e) for e in earlier) < min(x.began for x in later), f"{then} before {first}"


@pytest.fixture
def place(ram: Path, request: pytest.FixtureRequest) -> Place:
    root, source = ram / request.node.name, ram / f"{request.node.name}-source"
    root.mkdir()
    model.make_source(source)
    return Place(root, source)


def traced(place: Place, operation: str, *, serial: bool) -> Order:
    run = place.run(operation, serial=serial)
    assert run.returncode == 0, run.output
    return Order(place, place.root.parent / f"{place.root.name}.trace")


@pytest.mark.parametrize("serial", [True, False], ids=["one thread", "threads"])
def test_backup(place: Place, serial: bool) -> None:
    traced(place, "init", serial=serial)
    order = traced(place, "backup", serial=serial)
    order.assert_each_put_is_durable()
    assert len(order.puts("packs/")) >= 3 and len(order.puts("index/")) >= 2 and len(order.puts("snapshots/")) == 1
    assert not order.renames, "a write-once object was replaced"
    order.assert_before("sessions/", "packs/")
    order.assert_before("packs/", "snapshots/")
    order.assert_before("index/", "snapshots/")
    if serial:  # an index may be put while later packs are on their way; each comes after the packs that it names
        last = order.puts("index/")[-1]
        assert all(order.durable_at(p) < last.began for p in order.puts("packs/"))


def test_a_backup_settles_what_it_leans_on(place: Place) -> None:
    """The second one finds everything stored; still, what it saw may be what a killed process left in the cache."""
    for operation in ("init", "backup", "backup"):
        order = traced(place, operation, serial=False)
    order.assert_each_put_is_durable()
    [commit] = order.puts("snapshots/")
    for folder in ("", "/keyset", "/index", "/snapshots"):
        path = order.root + folder
        assert any(s.path == path and s.ended < commit.began for s in order.syncs), f"{path} is not settled"


def test_init(place: Place) -> None:
    order = traced(place, "init", serial=True)
    order.assert_each_put_is_durable()
    for earlier in ("slots/", "config"):
        order.assert_before(earlier, "keyset/")
    [commit] = order.puts("keyset/")
    for rename in order.renames:  # the rescue files, which an init that takes up another may replace
        folder = _PATH.findall(rename.text)[-1]
        assert any(s.path == folder and rename.ended < s.began and s.ended < commit.began for s in order.syncs)
    above = Path(order.root).parent
    assert any(s.path == str(above) for s in order.syncs), "the repository's own name is not durable"
