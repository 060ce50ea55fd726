"""The contest: each step is done by all tools in turn before the next one begins."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peerbench.corpora import Corpus
from peerbench.measure import Sample, bytes_of, files_of, run, warm
from peerbench.tools import BACKUPS, STEPS, Case, Tool

_MANY = 5000  # files; ext4 creates files slowly for minutes after more than a few thousand were removed
_SHOWN = 10  # lines of a difference


@dataclass(frozen=True)
class Result:
    """One step of one tool.  Seconds and bytes; ``added``: bytes by which the repository grew."""

    corpus: str
    round: int
    step: str
    tool: str
    wall: float
    user: float
    system: float
    peak: int
    repository: int
    added: int
    problem: str = ""  # why the figure does not count: the command failed, or what it restored differs

    def line(self) -> str:
        return (
            f"{self.corpus:8} {self.round}  {self.step:9} {self.tool:9} {self.wall:8.2f} s wall "
            f"{self.user + self.system:8.2f} s CPU {self.peak / 1e6:6.0f} MB peak {self.repository / 1e6:8.1f} MB "
            f"repository (+{self.added / 1e6:.1f})" + (f"\n    {self.problem}" if self.problem else "")
        )

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def contest(corpus: Corpus, tools: Sequence[Tool], number: int, folder: Path) -> list[Result]:
    """One round at one corpus.  ``folder`` is new; trees of many files stay in it, the rest is removed."""
    cases = {tool.name: _case(tool, corpus, folder) for tool in tools}
    turn = (number - 1) % len(tools)
    order = [*tools[turn:], *tools[:turn]]  # nobody is always first
    results: list[Result] = []
    failed: set[str] = set()
    with corpus.shown() as change:
        for step in STEPS:
            if step == "changed":
                if not corpus.changes:
                    continue
                change()
            for tool in order:
                result = None if tool.name in failed else _step(tool, step, cases[tool.name], corpus, number)
                if result is not None:
                    print(result.line(), flush=True)
                    results.append(result)
                    if result.problem:
                        failed.add(tool.name)
    for case in cases.values():
        if len(files_of(case.repo)) <= _MANY:
            shutil.rmtree(case.repo, ignore_errors=True)
    return results


def need(corpora: Sequence[Corpus], tools: int, rounds: int) -> int:
    """Bytes of disk that contests take at most: the restored trees of many files stay, all else goes with its round."""
    kept = sum(c.bytes for c in corpora if c.files > _MANY) * tools * rounds * 5 // 4  # blocks are larger than files
    return kept + max(c.bytes for c in corpora) * 2 * tools


def _case(tool: Tool, corpus: Corpus, folder: Path) -> Case:
    case = Case(folder / tool.name, corpus.live)
    case.home.mkdir(parents=True)
    case.out.mkdir()
    return case


def _step(tool: Tool, step: str, case: Case, corpus: Corpus, number: int) -> Result | None:
    command = tool.command(step, case)
    if command is None:
        return None
    before = bytes_of(case.repo)
    warm(Path(corpus.live) if step in BACKUPS else case.repo)
    os.sync()
    sample = run(command, _env(tool, case), case.folder / f"{step}.log", case.out if step == "restore" else None)
    problem = ""
    if sample.code:
        problem = f"exit {sample.code}: {' '.join(command)}\n{sample.output}"
    else:
        tool.done(step, case, sample.output)
        if step == "restore":
            problem = difference(Path(corpus.live), Path(f"{case.out}{corpus.live}"), exact=tool.exact)
            if corpus.files <= _MANY:
                shutil.rmtree(case.out)
    return _result(corpus, number, step, tool, sample, before, bytes_of(case.repo), problem)


def _result(
    corpus: Corpus, number: int, step: str, tool: Tool, sample: Sample, before: int, after: int, problem: str
) -> Result:
    times = sample.wall, sample.user, sample.system
    return Result(corpus.name, number, step, tool.name, *times, sample.peak, after, after - before, problem)


def _env(tool: Tool, case: Case) -> dict[str, str]:
    plain = {"PATH": os.environ["PATH"], "HOME": str(case.home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**plain, **tool.env(case)}


def difference(source: Path, restored: Path, *, exact: bool) -> str:
    """What is not as it was, by rsync; empty if nothing.  Without ``exact`` contents only, links followed."""
    what = ["-aHAXn", "--numeric-ids"] if exact else ["-rLmn"]
    command = ["rsync", *what, "--checksum", "--delete", "--itemize-changes", f"{source}/", f"{restored}/"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode == 0 and not lines:
        return ""
    return "\n".join([f"the restored tree differs in {len(lines)} entries:", *lines[:_SHOWN]])
