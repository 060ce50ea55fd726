"""``python -m snapvault.demo incident``: the incident of June 2024, played with generated datasets, and its figures."""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from snapvault.assurance.marks import LADDER
from snapvault.cli.text import harmless, human_seconds, human_size
from snapvault.demo.cast import Numbers, Part, of_kinds
from snapvault.demo.datasets import CAUSES
from snapvault.demo.display import Display
from snapvault.demo.incident import SECOND, Act, Incident
from snapvault.foundation.errors import InvalidInput, SnapvaultError
from snapvault.foundation.words import count


def main(argv: Sequence[str]) -> int:
    """Play it; 0 if all numbers came out as they were to."""
    options = _options(argv)
    keep = nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="snapvault-demo-")
    with keep as folder:
        place = Path(folder).resolve()
        place.mkdir(parents=True, exist_ok=True)
        numbers = Numbers(options.declared, options.backed_up, options.readable, options.alive)
        try:
            return _play(Incident(place, numbers, options.seed, Display()))
        except (SnapvaultError, OSError) as e:
            print(f"snapvault.demo: {harmless(str(e))}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m snapvault.demo incident", description=__doc__)
    parser.add_argument("--seed", default="april", help="another one gives another story (default: %(default)s)")
    for name, default in (("declared", 800), ("backed-up", 200), ("readable", 190), ("alive", 7)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="play in this new or empty folder, and leave it")
    options = parser.parse_args(argv)
    try:
        Numbers(options.declared, options.backed_up, options.readable, options.alive).check()
    except InvalidInput as e:
        parser.error(e.message)
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"{options.keep} is not empty")
    return options


def _play(incident: Incident) -> int:
    acts = list[Act]()
    for act in incident.acts():
        acts.append(act)
        _say(*told(act, incident.parts if act is acts[0] else ()))
    _say("", *figures(incident, acts))
    good = all(act.good for act in acts) and not incident.figures.different
    if not good:
        print("snapvault.demo: not everything came out as it was to", file=sys.stderr)
    return 0 if good else 1


def _say(*lines: str) -> None:
    for line in lines:
        print(harmless(line), flush=True)


def told(act: Act, parts: Sequence[Part]) -> Iterator[str]:
    """What was done, and what the board says; of ``parts``, why they did not come to life."""
    yield from ("", act.title, *(f"  {line}" for line in act.told), f"  board: {act.board['sentence']}")
    for cause in CAUSES if parts else ():
        states = dead(act.board, [part for part in parts if part.cause == cause])
        if states:
            first = states[0]
            yield f"  {len(states):>4} {cause}, as {first['dataset']}: {first['problems'][0]['why']}"


def dead(board: dict[str, Any], parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Those of some datasets that came back, and did not come to life, as the board has them."""
    names = {part.name for part in parts}
    states = [state for state in board["datasets"] if state["dataset"] in names]
    return [s for s in states if s["steps"]["restored"]["value"] == "good" and s["steps"]["alive"]["value"] == "bad"]


def figures(incident: Incident, acts: Sequence[Act]) -> Iterator[str]:
    """The numbers of each board, and what bringing everything back took."""
    yield f"{'by the board':14}" + "".join(f"{f'act {number}':>9}" for number in range(1, len(acts) + 1))
    for step in LADDER:
        yield f"{step:14}" + "".join(f"{act.funnel[step]:>9,}" for act in acts)
    last, f = acts[-1], incident.figures
    kinds = ", ".join(f"{what} {number:,}" for what, number in sorted(of_kinds(incident.parts).items()))
    yield ""
    yield f"kinds: {kinds}"
    yield from (f"left out: {why}" for why in incident.left_out)
    since = acts[0].board["unanswered_since"]
    yield f"copies unanswered in act 1: since {since[:10] if since else 'never'}"
    yield "back from the second site with the recovery key:"
    yield f"  time to bring back all: {human_seconds(f.seconds)}"
    yield f"  slowest dataset: {f.slowest}, {f.restores[f.slowest]:.2f} s"
    yield f"  bytes: {f.bytes:,} ({human_size(f.bytes)}) in {count(f.files, 'file')}"
    yield f"  the same bit for bit: {len(f.restores) - len(f.different):,} of {len(f.restores):,}"
    yield f"  probe passed, by the board: {last.alive_at(SECOND):,}"
    if f.different:
        yield f"  NOT THE SAME: {', '.join(f.different)}"
