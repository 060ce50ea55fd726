"""What goes wrong between two calls: listings that fail, other handles, thieves' values, uploads that never start."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import snapvault
from snapvault.backend.protocol import ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.format import wire
from snapvault.format.tree import EMPTY, Node, NodeKind, decode_tree, encode_tree
from snapvault.format.wire import FormatError
from snapvault.foundation.errors import Cancelled, InvalidInput, StoreUnavailable
from snapvault.foundation.events import Control
from snapvault.foundation.ids import SessionId
from snapvault.operations import parent
from snapvault.operations.files import FileWriter
from snapvault.operations.run import Run
from tests.repos import SMALL, again, make, save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(os.urandom(20_000))
    return tmp_path / "source"


class Failing(Wrapper):
    """Cannot list packs, for a while."""

    failing = True

    def list(self, prefix: str = "") -> Any:
        if self.failing and prefix == "packs/":
            raise StoreUnavailable("the store does not answer")
        found: list[ObjectInfo] = list(self.inner.list(prefix))
        return iter(found)


def test_a_search_for_lost_headers_that_failed_is_done_again(tmp_path: Path, source: Path) -> None:
    repo = make(tmp_path / "repo")
    saved = save(repo, source)
    for folder in ("sessions", "index"):
        for file in (tmp_path / "repo" / folder).iterdir():
            file.unlink()
    repo = again(repo)
    failing = repo.vault.store.backend = Failing(repo.vault.store.backend)
    sid = SessionId(saved.snapshot)
    with pytest.raises(StoreUnavailable):
        repo.vault.sessions.header(sid)
    failing.failing = False
    assert repo.vault.sessions.header(sid)[0].head.sid == sid


def test_pins_of_two_handles_join(tmp_path: Path, source: Path) -> None:
    repo = make(tmp_path / "repo", state=tmp_path / "state")
    older = again(repo, state=tmp_path / "state")
    list(older.snapshots())
    save(repo, source)
    snapvault.rotate(repo)
    repo.close()
    older.vault.pins.site.records[older.snapshot("latest").id] = "00"
    older.close()
    (pins,) = (tmp_path / "state").rglob("pins.json")
    (site,) = json.loads(pins.read_text()).values()
    assert site["keyset"] == 2
    assert len(site["records"]) == 1


def test_a_write_only_client_keeps_any_number_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = 5_000
    monkeypatch.setattr(wire, "MAX_VALUES", kept)  # the limit is a million: too slow here
    repo = make(tmp_path / "repo", cache=tmp_path / "cache")
    run = Run(repo.vault, "backup", None)
    with run:
        trees = {run.domain.blob_id(1, b"%d" % n): b"%d" % n for n in range(kept)}
        sid = run.session.sid if run.session is not None else ""
        parent.keep_trees(repo.vault, ("d", "h", ()), sid, EMPTY, trees)
        run.slots = [type("S", (), {"record": type("R", (), {"sid": sid})})]  # type: ignore[list-item]
        found = parent._kept(run, "d", "h", ())
        assert found.snapshot == sid
        assert isinstance(found._trees, parent.KeptTrees)
        blob = run.domain.blob_id(1, b"%d" % (kept - 1))
        assert found._trees.blob(blob, 1) == b"%d" % (kept - 1)


@pytest.mark.parametrize("values", [{"uid": 1 << 32}, {"gid": 1 << 40}, {"size": 1 << 63}])
def test_values_that_no_system_call_takes_are_refused(values: dict[str, int]) -> None:
    node = Node(b"a", NodeKind.FILE, 0o644, 0, 0, 0)
    for name, value in values.items():
        setattr(node, name, value)
    with pytest.raises(FormatError):
        decode_tree(encode_tree([node], {}, {}))


def test_a_cancelled_restore_leaves_no_temporary_files(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make(tmp_path / "repo", chunking=SMALL)
    save(repo, source)
    cancel = threading.Event()
    write = FileWriter.write

    def write_and_cancel(*args: Any) -> None:
        write(*args)
        cancel.set()

    monkeypatch.setattr(FileWriter, "write", write_and_cancel)
    with pytest.raises(Cancelled):
        snapvault.restore(repo, "latest", tmp_path / "out", control=Control(cancel=cancel))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_what_is_no_text_is_no_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        snapvault.init(str(tmp_path / "repo"), password="\udcff")


def test_a_login_name_that_is_no_text_stops_no_backup(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "\udcff")
    repo = make(tmp_path / "repo")
    save(repo, source)
