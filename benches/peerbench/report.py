"""Medians, ratios, and how they stand to what is to be reached."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from peerbench.contest import Result

SUBJECT = "snapvault"
PEAK_LIMIT = 250_000_000  # bytes of memory in any step
Summary = dict[str, dict[str, dict[str, dict[str, Any]]]]  # corpus, tool, step, figure


class Target(NamedTuple):
    """``figure`` of a step at most ``limit`` times that of each of ``peers``."""

    corpus: str
    step: str
    figure: str
    limit: float
    peers: tuple[str, ...]


def _targets() -> Iterable[Target]:
    yield Target("small", "first", "wall", 0.33, ("restic",))
    yield Target("small", "first", "wall", 0.9, ("pipe",))
    yield Target("small", "unchanged", "wall", 0.35, ("restic",))
    yield Target("small", "restore", "wall", 0.2, ("restic",))
    yield Target("small", "restore", "wall", 0.8, ("pipe",))
    yield Target("small", "check", "wall", 0.5, ("restic",))
    for corpus in ("image", "media", "dump"):
        yield Target(corpus, "first", "wall", 0.5, ("restic", "borg"))
        yield Target(corpus, "unchanged", "wall", 1.0, ("restic",))
        yield Target(corpus, "restore", "wall", 0.6, ("restic",))
        yield Target(corpus, "check", "wall", 0.6, ("restic",))
    for corpus, limit in (("small", 0.75), ("image", 0.92), ("media", 1.005), ("dump", 0.9)):
        yield Target(corpus, "first", "repository", limit, ("restic",))
    for corpus, limit in (("small", 0.85), ("image", 0.45), ("dump", 0.2)):
        yield Target(corpus, "changed", "added", limit, ("restic",))


TARGETS = tuple(_targets())


def summary(results: Iterable[Result]) -> Summary:
    """Median, least and greatest of each figure; results with a problem are left out."""
    collected: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for r in results:
        if not r.problem:
            collected[r.corpus, r.tool, r.step].append(r)
    told: Summary = {}
    for (corpus, tool, step), runs in collected.items():
        figures: dict[str, list[float]] = {
            "wall": [r.wall for r in runs],
            "cpu": [r.user + r.system for r in runs],
            "peak": [r.peak for r in runs],
            "repository": [r.repository for r in runs],
            "added": [r.added for r in runs],
        }
        told.setdefault(corpus, {}).setdefault(tool, {})[step] = {
            name: {"median": median(values), "min": min(values), "max": max(values)} for name, values in figures.items()
        }
    return told


def ratio(told: Summary, corpus: str, step: str, figure: str, peer: str) -> float | None:
    """snapvault's median as a part of a peer's, or None if one of the two is missing."""
    try:
        ours, theirs = (told[corpus][tool][step][figure]["median"] for tool in (SUBJECT, peer))
    except KeyError:
        return None
    return ours / theirs if theirs else None


def ratios(told: Summary) -> dict[str, Any]:
    """By corpus, peer, step and figure."""
    found: dict[str, Any] = {}
    for corpus, tools in told.items():
        for peer in tools.keys() - {SUBJECT}:
            for step, figures in tools[peer].items():
                parts = {f: ratio(told, corpus, step, f, peer) for f in figures}
                known = {f: round(part, 4) for f, part in parts.items() if part is not None}
                if known:
                    found.setdefault(corpus, {}).setdefault(peer, {})[step] = known
    return found


def judged(told: Summary) -> list[dict[str, Any]]:
    """Every target of the corpora and peers that were measured."""
    verdicts = []
    for target in TARGETS:
        for peer in target.peers:
            part = ratio(told, target.corpus, target.step, target.figure, peer)
            if part is not None:
                verdicts.append(
                    {**target._asdict(), "peers": peer, "ratio": round(part, 4), "reached": part <= target.limit}
                )
    for corpus, tools in told.items():
        peaks = [figures["peak"]["max"] for figures in tools.get(SUBJECT, {}).values()]
        if peaks:
            limit: Mapping[str, Any] = {"corpus": corpus, "step": "any", "figure": "peak", "limit": PEAK_LIMIT}
            verdicts.append({**limit, "bytes": max(peaks), "reached": max(peaks) <= PEAK_LIMIT})
    return verdicts


def lines(told: Summary, verdicts: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """For people: the medians, then the targets."""
    for corpus, tools in told.items():
        yield f"\n{corpus}, medians: wall s (CPU s, peak MB); repository and growth in MB"
        for tool, steps in tools.items():
            cells = [
                f"{step} {f['wall']['median']:.2f} ({f['cpu']['median']:.2f}, {f['peak']['median'] / 1e6:.0f})"
                for step, f in steps.items()
            ]
            sizes = [
                f"{step} {steps[step][figure]['median'] / 1e6:.1f}"
                for step, figure in (("first", "repository"), ("changed", "added"))
                if step in steps
            ]
            yield f"  {tool:9} {'  '.join(cells)} | {'  '.join(sizes)}"
    yield "\nto reach:"
    for v in verdicts:
        mark = "reached" if v["reached"] else "NOT REACHED"
        if "peers" in v:
            part = f"{v['ratio']:.3f} x {v['peers']} (<= {v['limit']})"
            yield f"  {v['corpus']:8} {v['step']:9} {v['figure']:10} {part}: {mark}"
        else:
            yield f"  {v['corpus']:8} {v['bytes'] / 1e6:.0f} MB peak (<= {v['limit'] / 1e6:.0f}): {mark}"
