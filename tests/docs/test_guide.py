"""Every command of the guide does what the page shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import postgres
import pytest
import servers
from locking import locked_place

import snapvault

ROOT = Path(snapvault.__file__).parents[1]
GUIDE = ROOT / "docs/guide"
PAGES = sorted(GUIDE.glob("*.md"))
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVED = ("README", "databases", "immutable", "s3")  # not followed, or with a server
END = "--end of command--"


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands of a page in order, each with the lines that it should answer."""
    for block in BLOCK.findall(page.read_text()):
        command: list[str] = []
        answer: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield "\n".join(command), answer
                command, answer = [line[2:]], []
            elif line.startswith("> ") and not answer:
                command.append(line[2:])
            else:
                answer.append(line)
        yield "\n".join(command), answer


def pattern(answer: list[str]) -> re.Pattern[str]:
    """``...`` alone is any number of lines; inside a line it is any text."""
    lines = []
    for line in answer:
        part = ".*".join(re.escape(piece) for piece in line.split("..."))
        lines.append("(?:.*\n)*" if line == "..." else part + "\n")
    return re.compile("".join(lines))


class Shell:
    """One bash for a page, with a home of its own."""

    def __init__(self, home: Path, **env: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=home,
            env={"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TZ": "UTC", **env},
        )  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """Exit code and everything that was written."""
        assert self._bash.stdin is not None and self._bash.stdout is not None
        # In braces and not in parentheses: what is exported stays.
        self._bash.stdin.write(f"{{ {command}\n}} < /dev/null\necho; echo '{END}' $?\n")
        self._bash.stdin.flush()
        lines = []
        while not (line := self._bash.stdout.readline()).startswith(END):
            assert line, f"the shell ended in {command!r}"
            lines.append(line)
        text = "".join(lines).removesuffix("\n")
        return int(line.split()[-1]), text

    def close(self) -> None:
        """End the shell."""
        self._bash.communicate(timeout=10)


def follow(page: Path, home: Path, **env: str) -> int:
    """Do what the page says and compare; how many commands there were."""
    shell, count = Shell(home, **env), 0
    try:
        for command, answer in commands(page):
            code, said = shell.run(command)
            assert code == 0, f"{page.name}: {command}\nexit code {code}\n{said}"
            if answer:
                assert pattern(answer).fullmatch(said), (
                    f"{page.name}: {command}\n--- said\n{said}--- shown\n" + "\n".join(answer)
                )
            count += 1
    finally:
        shell.close()
    return count


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in SERVED], ids=lambda p: p.stem)
def test_a_page(page: Path, tmp_path: Path) -> None:
    assert follow(page, tmp_path) >= 5


def test_the_page_of_databases(tmp_path: Path) -> None:
    with postgres.server(tmp_path / "postgres") as env:
        (tmp_path / "home").mkdir()
        assert follow(GUIDE / "databases.md", tmp_path / "home", **env) >= 9


def test_the_page_of_s3(tmp_path: Path, seaweedfs: servers.Fresh) -> None:
    url, options = seaweedfs()
    env = {"BUCKET": urlsplit(url).netloc, "ENDPOINT": options["client_kwargs"]["endpoint_url"]}
    assert follow(GUIDE / "s3.md", tmp_path, **env) >= 15


def test_the_page_of_immutability(tmp_path: Path, seaweedfs: servers.Fresh) -> None:
    url, options = locked_place(seaweedfs())  # a bucket that is not there yet
    env = {"BUCKET": urlsplit(url).netloc, "ENDPOINT": options["client_kwargs"]["endpoint_url"]}
    assert follow(GUIDE / "immutable.md", tmp_path, **env) >= 18


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (GUIDE / "README.md").read_text()))
    assert linked == {p.name for p in PAGES} - {"README.md"}


def test_what_is_shown_is_compared() -> None:
    """A page that is wrong must be found."""
    assert pattern(["a ... b", "..."]).fullmatch("a xyz b\nmore\nlines\n")
    assert not pattern(["a ... b"]).fullmatch("a xyz b\nmore\n")
    assert not pattern(["exit code 3"]).fullmatch("exit code 30\n")
