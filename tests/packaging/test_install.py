"""What is built and installed: with a compiler, without one, and with one that fails.

The builds run in a scratch copy of the sources, by pip and its isolation, as a user's would.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "chunking" / "vectors.json"
SOURCES = ("snapvault", "native", "build_backend", "tests/chunking", "docs")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "CHANGELOG.md", "README.md")

# Runs against an installed copy: every golden vector that is short enough for the twin, and what is loaded.
PROBE = """
import json, sys, logging, io
from blake3 import blake3
stream = io.StringIO()
logging.basicConfig(stream=stream, level=logging.WARNING)
import snapvault.chunking as chunking
checked = 0
for vector in json.load(open(sys.argv[1])):
    recipe = vector["input"]
    if recipe["kind"] == "xof" and recipe["size"] <= 20000:
        data = blake3(recipe["seed"].encode()).digest(length=recipe["size"])
        chunker = chunking.Chunker(chunking.Chunking(*vector["sizes"]), bytes.fromhex(vector["key"]))
        assert chunker.cuts(data, final=True) == vector["ends"], recipe
        checked += 1
print(json.dumps({"native": chunking.NATIVE, "file": chunking.__file__, "checked": checked, "log": stream.getvalue()}))
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # The tools of the test run (pip's own variables, a compiler chosen by CI) must not decide the result.
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "CFLAGS", "LDSHARED", "PYTHONPATH")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    copy = tmp_path / "sources"
    copy.mkdir()
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture
def empty_path(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def build(sources: Path, **environment: str) -> tuple[Path, str]:
    """The wheel that pip builds from the sources, and what the build said."""
    out = sources.parent / "wheels"
    command = (sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--wheel-dir", out, sources)
    done = run(*command, cwd=sources.parent, **environment)
    (wheel,) = out.iterdir()
    return wheel, done.stdout + done.stderr


def probe(wheel: Path) -> dict[str, object]:
    """What the installed wheel says of itself after it agreed with the golden vectors."""
    target = wheel.parent.parent / "installed"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel, cwd=target.parent)
    # -S: without the hooks of an editable installation, which would lend its native module to this one.
    path = os.pathsep.join([str(target), sysconfig.get_path("platlib")])
    done = run(sys.executable, "-S", "-c", PROBE, VECTORS, cwd=target.parent, PYTHONPATH=path)
    answer: dict[str, object] = json.loads(done.stdout)
    assert str(answer["file"]).startswith(str(target)), "another installation was probed"
    assert isinstance(answer["checked"], int) and answer["checked"] > 30
    return answer


def assert_portable_extension(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith((".so", ".pyd"))]
        assert name == "snapvault/_native.abi3.so"


def test_wheel_with_the_compiler_of_this_machine(sources: Path) -> None:
    wheel, said = build(sources)
    assert_portable_extension(wheel)
    assert "ziglang" not in said
    assert probe(wheel) | {"file": "", "checked": 0} == {"native": True, "file": "", "checked": 0, "log": ""}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"snapvault/py.typed", "snapvault/_native.pyi", "snapvault/rescue/rescue-1.py"} <= set(names)
    assert "snapvault/report/board.css" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"snapvault"}


def test_without_a_compiler_the_build_brings_its_own(sources: Path, empty_path: Path) -> None:
    wheel, said = build(sources, PATH=str(empty_path))
    assert "ziglang" in said
    assert_portable_extension(wheel)
    assert probe(wheel)["native"] is True


def test_a_compiler_that_fails_leaves_the_twin(sources: Path) -> None:
    wheel, said = build(sources, CC="/bin/false")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "could not be built" in said and "plain-Python twin" in said
    answer = probe(wheel)
    assert answer["native"] is False
    assert str(answer["log"]).count("native module is missing") == 1


def test_the_source_distribution_is_complete(sources: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", "dist", ".", cwd=sources)
    (sdist,) = (sources / "dist").iterdir()
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = (
        "native/native.c",
        "native/native.h",
        "native/files.c",
        "setup.py",
        "build_backend/snapvault_build.py",
        "LICENSE",
        "tests/chunking/vectors.json",
    )
    assert set(needed) <= names
    assert not any(name.endswith((".so", ".pyc")) for name in names)


HOOKS = ("get_requires_for_build_wheel", "get_requires_for_build_editable")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "build_backend")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("SNAPVAULT_PURE", raising=False)
    build = importlib.import_module("snapvault_build")
    for hook in HOOKS:  # what setuptools itself asks for depends on its version
        monkeypatch.setattr(build.build_meta, hook, lambda settings: ["wheel"])
    return build


@pytest.mark.parametrize("hook", HOOKS)
def test_the_compiler_is_asked_for_only_where_none_is_found(
    backend: ModuleType, hook: str, empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks() -> bool:
        wheel, *compiler = getattr(backend, hook)()
        assert wheel == "wheel"
        return [name.startswith("ziglang") for name in compiler] == [True]

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not asks()
    monkeypatch.setenv("PATH", str(empty_path))
    assert asks()
    (empty_path / "cc").symlink_to("/bin/true")
    assert not asks()
    (empty_path / "cc").unlink()
    monkeypatch.setenv("CC", "/bin/true --flag")
    assert not asks()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert asks()
    monkeypatch.setattr("platform.machine", lambda: "m68k")
    assert not asks()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("SNAPVAULT_PURE", "1")
    assert not asks()


HEAVY = ("aiohttp", "botocore", "click", "cryptography", "fsspec", "msgspec", "rich", "s3fs", "zstandard")


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, snapvault; print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    assert run(sys.executable, "-c", code, cwd=tmp_path).stdout.strip() == "[]"
