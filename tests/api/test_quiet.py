"""What the library does not do: tell secrets, print, read the environment, load what is not needed."""

import gc
import io
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repos import make, python, save

import snapvault
from snapvault import Repository
from snapvault.crypto.recovery import decode_recovery_key
from snapvault.repository.credentials import credential, parse_key

PASSWORD = "correct horse battery staple 4711"
HEAVY = (
    "asyncio", "blake3", "click", "concurrent.futures", "cryptography", "fsspec", "msgpack", "msgspec", "pathspec",
    "platformdirs", "rich", "s3fs", "tenacity", "zstandard",
)  # fmt: skip


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


# -- secrets ----------------------------------------------------------------------------------------------------------


def _forms(secret: bytes) -> set[str]:
    """How a secret could show: as it is, in hex, as Python writes bytes, a part of each."""
    whole = {secret.hex(), repr(secret)[2:-1], repr(bytearray(secret))[12:-2]}
    return whole | {secret[:12].hex(), secret.hex()[:24].upper()}


def _secrets(repo: Repository, key: str) -> set[str]:
    ring = repo.vault.ring
    secrets = [decode_recovery_key(key).seed, ring.own.seeds, ring.own.seeds[:32], ring.own.seeds[32:]]  # type: ignore[union-attr]
    for domain in ring.domains.values():
        secrets += [domain.secret, *domain.id_keys, domain.index_key]
    return {PASSWORD, *key.split()[1:], *(form for secret in secrets for form in _forms(secret))}


def _reachable(*roots: object) -> list[object]:
    """Everything that can be reached from here, but for modules, code and the insides of libraries."""
    seen: dict[int, object] = {}
    todo = list(roots)
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, type) or type(found).__module__ in ("builtins.module", "logging"):
            continue
        if isinstance(found, type(os)) or (callable(found) and not hasattr(found, "__self__")):
            continue
        seen[id(found)] = found
        todo += gc.get_referents(found)
    return list(seen.values())


def test_no_text_tells_a_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """repr and str of everything that a caller can reach, all logs of a life, all messages of errors."""
    caplog.set_level(logging.DEBUG)
    made = snapvault.init(str(tmp_path / "repo"), password=PASSWORD, state=tmp_path / "state", cache=tmp_path / "cache")
    repo = made.repository
    secrets = _secrets(repo, made.recovery_key)
    assert len(secrets) > 30
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_bytes(b"f" * 1000)
    result = save(repo, tmp_path / "src")
    key = snapvault.add_key(repo, "writer", "client", file=tmp_path / "client.key")
    texts = [str(e.value) for e in _errors(repo, tmp_path)]
    own = [x for x in _reachable(repo, made, result, key, repo.snapshot("latest")) if _is_ours(x)]
    assert len(own) > 30
    for found in own:
        texts += [repr(found), str(found)]
    texts += [repr(credential(PASSWORD, None)), repr(parse_key((tmp_path / "client.key").read_bytes()))]
    texts += [repr(decode_recovery_key(made.recovery_key)), caplog.text, *capfd.readouterr()]
    told = {s for s in secrets for text in texts if s in text}
    assert told == set(), [t[:200] for t in texts if any(s in t for s in secrets)]
    assert PASSWORD in _forms_of_a_leak(), "the search finds nothing"


def _forms_of_a_leak() -> str:
    return repr({"password": PASSWORD})


def _is_ours(found: object) -> bool:
    return type(found).__module__.startswith("snapvault")


def _errors(repo: Repository, tmp_path: Path) -> list[pytest.ExceptionInfo[snapvault.SnapvaultError]]:
    found = []
    for call in (
        lambda: snapvault.open(repo.url, password=PASSWORD + "x"),
        lambda: snapvault.open(repo.url + "x", password=PASSWORD),
        lambda: snapvault.open(repo.url, keys=lambda: b"1" * 32),
        lambda: snapvault.open(f"sftp://user:{PASSWORD}@127.0.0.1:1/x", password="y"),
        lambda: snapvault.backup(repo, tmp_path / "none", dataset="d"),
        lambda: snapvault.add_key(repo, "writer", "a", password=lambda: ""),
    ):
        with pytest.raises(snapvault.SnapvaultError) as e:
            call()
        found.append(e)
    return found


def test_credentials_in_a_url_are_told_nowhere(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A URL of a store, a source and a target."""
    caplog.set_level(logging.DEBUG)
    url = f"ftp://user:{PASSWORD.replace(' ', '')}@127.0.0.1:1/place"
    repo = make(tmp_path / "repo")
    (tmp_path / "f").touch()
    save(repo, tmp_path / "f")
    texts = []
    for call in (
        lambda: snapvault.open(url, password="x"),
        lambda: snapvault.init(url, password="x"),
        lambda: snapvault.backup(repo, url, dataset="d"),
        lambda: snapvault.restore(repo, "latest", url),
    ):
        with pytest.raises(Exception) as e:
            call()
        texts.append(f"{e.value} {e.value!r}")
    assert len(texts) == 4
    assert [t for t in (*texts, caplog.text) if PASSWORD.replace(" ", "") in t] == []


def test_pickling_keeps_no_secret(tmp_path: Path) -> None:
    """The copy knows where the repository is, and does nothing until it is opened with a key."""
    made = snapvault.init(str(tmp_path / "repo"), password=PASSWORD, cache=tmp_path / "cache", state=tmp_path / "state")
    repo = made.repository
    data = pickle.dumps(repo)
    raw = {decode_recovery_key(made.recovery_key).seed, repo.vault.ring.own.seeds, PASSWORD.encode()}  # type: ignore[union-attr]
    raw |= {d.secret for d in repo.vault.ring.domains.values()}
    assert not [s for s in raw if s in data] and len(data) < 500
    copy = pickle.loads(data)
    assert (copy.url, copy.id, copy.role, repr(copy)) == (repo.url, repo.id, repo.role, repr(repo))
    with pytest.raises(snapvault.InvalidInput, match="without its keys"):
        list(copy.snapshots())
    copy.close()
    (tmp_path / "f").write_bytes(b"f")
    save(repo, tmp_path / "f")
    with copy.reopen(password=PASSWORD) as opened:
        assert [s.dataset for s in opened.snapshots()] == ["d"]
        assert (opened.cache, opened.state) == (repo.cache, repo.state)
    with pytest.raises(snapvault.KeyRejected):
        copy.reopen(password="other")
    snapshot = repo.snapshot("latest")
    for holder in (snapshot, repo.vault, repo.vault.ring):
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            pickle.dumps(holder)


def test_another_process_works_with_the_copy(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"f")
    save(repo, tmp_path / "f")
    code = (
        "import pickle, sys\n"
        "repo = pickle.loads(bytes.fromhex(sys.argv[1])).reopen(keys=lambda: bytes(range(32)))\n"
        "print(repo.snapshot('latest').open(sys.argv[2]).read())\n"
    )
    assert python(code, pickle.dumps(repo).hex(), tmp_path / "f") == "b'f'\n"


# -- import -----------------------------------------------------------------------------------------------------------


def _modules_after(code: str) -> set[str]:
    return set(python(f"import sys\n{code}\nprint(*sys.modules)").split())


def test_import_loads_nothing_heavy() -> None:
    loaded = _modules_after("import snapvault") - _modules_after("pass")
    assert [m for m in loaded if m.startswith(HEAVY)] == []
    assert {m for m in loaded if m.startswith("snapvault")} == {"snapvault"}
    assert {m for m in loaded if m.startswith("snapvault")} < _modules_after("import snapvault; snapvault.backup")


def test_work_loads_only_what_it_needs(tmp_path: Path) -> None:
    """A local backup and restore with a key: nothing of the command line, of remote stores, of an event loop."""
    code = (
        "import snapvault\n"
        f"repo = snapvault.init({str(tmp_path / 'repo')!r}, keys=lambda: bytes(32)).repository\n"
        f"snapvault.backup(repo, {str(tmp_path)!r}, dataset='d')\n"
        f"snapvault.restore(repo, 'latest', {str(tmp_path / 'out')!r})\n"
        "snapvault.check(repo, read_data=True)"
    )
    unwanted = ("asyncio", "click", "fsspec", "msgspec", "pathspec", "platformdirs", "rich", "tenacity")
    assert [m for m in _modules_after(code) if m.startswith(unwanted)] == []


def test_public_names() -> None:
    """All are there, typed, described, and no more than are declared."""
    assert sorted(snapvault.__all__) == [*snapvault.__all__] == dir(snapvault)
    for name in snapvault.__all__:
        assert (getattr(snapvault, name).__doc__ or "").strip(), name
    assert (Path(snapvault.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = snapvault.nothing  # type: ignore[attr-defined]


def test_users_code_type_checks(tmp_path: Path) -> None:
    """mypy knows what everything is, from the installed package alone."""
    (tmp_path / "user.py").write_text(
        "import snapvault\n"
        "from pathlib import Path\n"
        "repo = snapvault.open('/r', password=lambda: 'x')\n"
        "result = snapvault.backup(repo, Path('/srv'), snapvault.Command(['a']), dataset='d')\n"
        "reveal_type(result.bytes_new)\n"
        "reveal_type([s.id for s in repo.snapshots()])\n"
        "reveal_type(repo.snapshot('latest').open('/f').read())\n"
        "with repo.writer('d') as w, w.open('f') as f:\n"
        "    reveal_type(f.write(b''))\n"
        "snapvault.backup(repo, 'x')\n"
        "snapvault.restore(repo, 17, '/t')\n"
    )
    package = Path(snapvault.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path / "c", "user.py"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": str(package)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    kinds = [t.partition('"')[2].rstrip('"') for t in told if t.startswith("note: Revealed")]
    assert kinds == ["int", "list[snapvault.foundation.ids.SessionId]", "bytes", "int"], done.stdout
    assert [t for t in told if t.startswith("error")] == [
        'error: Missing named argument "dataset" for "backup"  [call-arg]',
        'error: Argument 2 to "restore" has incompatible type "int"; expected "str | Snapshot"  [arg-type]',
    ]


# -- the world outside ------------------------------------------------------------------------------------------------

LIFE = """
import io, os, sys, threading
import snapvault
if len(sys.argv) > 2:
    class Spy(dict):
        read = []
        def __getitem__(self, key): Spy.read.append(key); return dict.__getitem__(self, key)
        def get(self, key, default=None): Spy.read.append(key); return dict.get(self, key, default)
        def __contains__(self, key): Spy.read.append(key); return dict.__contains__(self, key)
        def copy(self): Spy.read.append("everything"); return dict.copy(self)
    asked = Spy.read
    real = os.environ
    os.environ = Spy(real)
    os.getenv = lambda key, default=None: (asked.append(key), default)[1]
base = sys.argv[1]
repo = snapvault.init(base + "/repo", password="p", cache=None, state=None).repository
repo.close()
repo = snapvault.open(base + "/repo", password="p")
snapvault.backup(repo, base + "/src", dataset="d", exclude=["x"])
snapvault.backup(repo, io.BytesIO(b"stream"), dataset="s")
snapvault.backup(repo, snapvault.Command(["true"]), dataset="c")
with repo.writer("w") as w, w.open("f") as f:
    f.write(b"f")
snapvault.restore(repo, "d@latest", base + "/out", verify=True)
snapvault.restore(repo, "d@latest", io.BytesIO(), path="/")
list(snapvault.diff(repo, "d@latest", "w@latest"))
snapvault.check(repo, read_data=True)
snapvault.scrub(repo.url)
snapvault.forget_snapshots(repo, ["w@latest"])
for attempt in (lambda: snapvault.open(base + "/repo", password="no"), lambda: repo.snapshot("nothing")):
    try:
        attempt()
    except snapvault.SnapvaultError:
        pass
repo.close()
if len(sys.argv) > 2:
    os.environ = real
    # Switches of libraries, and where to look for the command's program.
    rest = set(asked) - {"MSGPACK_PUREPYTHON", "PYTHON_ZSTANDARD_IMPORT_POLICY", "PATH", b"PATH"}
    sys.exit(str(rest) if rest else 0)
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_bytes(b"f")
    return tmp_path


def test_nothing_is_printed(base: Path) -> None:
    """A whole life, errors included, writes nothing to standard output or error."""
    env = {**os.environ, "PYTHONPATH": str(Path(snapvault.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", LIFE, base], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_no_variable_of_the_environment_is_read(base: Path) -> None:
    python(LIFE, base, "spy")


def test_variables_of_the_command_line_mean_nothing_here(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SNAPVAULT_PASSWORD", "SNAPVAULT_PASSWORD_FILE", "SNAPVAULT_REPOSITORY", "SNAPVAULT_KEY_FILE"):
        monkeypatch.setenv(name, "p")
    monkeypatch.setenv("SNAPVAULT_STATE_DIR", str(base / "state"))
    monkeypatch.setenv("SNAPVAULT_CACHE_DIR", str(base / "cache"))
    monkeypatch.setenv("HOME", str(base / "home"))
    snapvault.init(str(base / "repo"), password="p").repository.close()
    with pytest.raises(snapvault.InvalidInput, match="password or a key"):
        snapvault.open(str(base / "repo"))
    assert sorted(os.listdir(base)) == ["repo", "src"]


def test_logs_go_to_one_logger(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And it has no handler of its own."""
    python(
        "import logging, sys, io, snapvault\n"
        "stream = io.StringIO()\n"
        "logging.getLogger('snapvault').addHandler(logging.StreamHandler(stream))\n"
        "logging.getLogger('snapvault').setLevel(1)\n"
        "repo = snapvault.init(sys.argv[1], keys=lambda: bytes(32)).repository\n"
        "snapvault.backup(repo, snapvault.Command(['sh', '-c', 'echo told >&2']), dataset='d')\n"
        "assert 'told' in stream.getvalue(), stream.getvalue()\n"
        "assert not logging.getLogger().handlers\n",
        base / "repo",
    )


def test_a_password_is_asked_for_when_needed(tmp_path: Path) -> None:
    """Once an opening, and not where there is no repository."""
    asked = []

    def ask() -> str:
        asked.append(1)
        return PASSWORD

    snapvault.init(str(tmp_path / "repo"), password=ask).repository.close()
    assert len(asked) <= 2
    asked.clear()
    snapvault.open(str(tmp_path / "repo"), password=ask).close()
    assert len(asked) == 1
    with pytest.raises(snapvault.RepositoryNotFound):
        snapvault.open(str(tmp_path / "nothing"), password=ask)
    assert len(asked) == 1


def test_streams_are_not_closed(repo: Repository) -> None:
    stream = io.BytesIO(b"x")
    save(repo, stream)
    assert not stream.closed
    out = io.BytesIO()
    snapvault.restore(repo, "latest", out, path="/")
    assert not out.closed and out.getvalue()


def test_places_are_paths_or_text(tmp_path: Path) -> None:
    """Of the repository and of its folders, as everywhere in Python."""
    place, cache = tmp_path / "repository", tmp_path / "cache"
    snapvault.init(place, password="pw", cache=str(cache), state=str(tmp_path / "state")).repository.close()
    with snapvault.open(str(place), password="pw", cache=cache, state=tmp_path / "state") as repo:
        assert not list(repo.snapshots())
    assert cache.is_dir() and (tmp_path / "state").is_dir()
