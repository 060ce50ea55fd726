"""Bytes (family 3): every object of every kind, flipped, cut, grown, zeroed, deleted, doubled, swapped, made older.

Every byte is flipped against the check that needs no key and against the one that reads packs; a sample of flips and
every other damage goes through open, check, scrub and the restore of every snapshot.
"""

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from battery import lab
from battery.lab import Lab, Objects, Verdict

import snapvault
from snapvault.format import names
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import PackId
from snapvault.operations.check_data import DataCheck
from snapvault.operations.check_objects import Beginning, ObjectCheck
from snapvault.operations.scrub import Scrub

KINDS = (
    names.CONFIG, names.KEYSETS, names.SLOTS, names.SESSIONS, names.PACKS, names.INDEX, names.SNAPSHOTS, names.NOTES,
    names.CAPABILITIES, names.HEARTBEATS, names.GC, names.TOMBSTONES, names.VERIFIED, names.REGISTER, names.EVIDENCE,
    "RESCUE-", "rescue-",
)  # fmt: skip
FLIPS = 120  # judged by everything; `long` takes LONG_FLIPS
LONG_FLIPS = 10_000


@pytest.fixture(scope="module")
def made() -> Iterator[Lab]:
    with lab.scratch_folder() as home:
        built = lab.build(home)
        missing = [k for k in KINDS if not any(n.startswith(k) for n in built.store.objects)]
        assert not missing, f"the lab holds no {missing}"
        yield built


@pytest.fixture
def scratch() -> Iterator[Path]:
    with lab.scratch_folder() as folder:
        yield folder


def kind_of(name: str) -> str:
    return next(k for k in KINDS if name.startswith(k))


# -- every byte -------------------------------------------------------------------------------------------------------


def test_every_byte_is_held_by_a_scrub(made: Lab) -> None:
    """One bit of each byte of every object, the check without a key; it must name that very object."""
    store, tried = made.copy().store, 0
    scrub = Scrub(store, Reporter("check"))
    assert scrub.run().status == "ok"
    for name, data in list(store.objects.items()):
        changed = bytearray(data)
        for at in range(len(data)):
            changed[at] ^= 1 << at % 8
            store.objects[name] = bytes(changed)
            changed[at] ^= 1 << at % 8
            if name == names.CONFIG:
                assert snapvault.scrub(store.url).status == "damaged" if _opens(store.url) else True
            else:
                with pytest.raises(Damaged):
                    scrub._object(name)
            tried += 1
        store.objects[name] = data
    assert tried == sum(map(len, made.store.objects.values())) > 150_000


def _opens(url: str) -> bool:
    with pytest.raises(Damaged) as refused:
        snapvault.scrub(url)
    assert refused.value.affected == (names.CONFIG,)
    return False


def test_every_byte_of_a_pack_is_held_by_a_check(made: Lab) -> None:
    """The check that reads data says which segments cannot be had: those that hold the byte, and no others."""
    copy, tried = made.copy(), 0
    with copy.open() as repo:
        listing = {o.name: o for o in copy.store.list()}
        objects = ObjectCheck(repo.vault, listing, Beginning(repo.vault), Reporter("check"))
        objects.run()
        check = DataCheck(repo.vault, objects, Reporter("check"), 1)
        smallest = sorted(objects.present, key=lambda p: (objects.present[p], p))[:2]
        for pack in smallest:
            name, (_, segments) = names.pack(pack), objects.claims.entry(objects.claims.of(pack)[0])
            data = copy.store.objects[name]
            assert not check._read(pack, len(data)).problems
            changed = bytearray(data)
            for at in range(len(data)):
                changed[at] ^= 0x10
                copy.store.objects[name] = bytes(changed)
                changed[at] ^= 0x10
                outcome = check._read(pack, len(data))
                hit = {s.offset for s in segments if s.offset <= at < s.offset + s.sealed}
                assert outcome.problems
                assert {start for _, start, _ in outcome.bad.segments} == hit, f"byte {at} of {name}"
                tried += 1
            copy.store.objects[name] = data
    assert tried == sum(objects.present[p] for p in smallest) >= 2 * 1024  # the lab pads them to that


# -- what becomes of it -----------------------------------------------------------------------------------------------


def promised(verdict: Verdict, made: Lab, name: str, scratch: Path, damaged: Lab) -> None:
    """What may be lost to a damage of one object, and by whom it still opens."""
    kind = kind_of(name)
    if verdict.refused:
        assert kind in (names.CONFIG, names.KEYSETS, names.SLOTS), f"{name}: {verdict.refused}"
        if kind != names.CONFIG:  # the recovery key needs neither slot nor keyset
            with damaged.open_recovery() as repo:
                for sid, tree in made.trees.items():
                    assert not lab.restore_one(repo, sid, tree, scratch)
    elif kind != names.PACKS:
        assert not verdict.lost, f"{name}: paths are lost: {verdict.lost}"
    assert verdict.gone <= {name.removeprefix(names.SNAPSHOTS)}, f"{name} hides {verdict.gone}"


def flips(made: Lab, count: int, seed: int) -> Iterator[tuple[str, int]]:
    """As many of every kind, wherever in it."""
    choice = random.Random(seed)
    by_kind = {k: [n for n in made.store.objects if n.startswith(k)] for k in KINDS}
    for i in range(count):
        name = choice.choice(sorted(by_kind[KINDS[i % len(KINDS)]]))
        yield name, choice.randrange(8 * len(made.store.objects[name]))


def judge_flips(made: Lab, scratch: Path, count: int) -> None:
    seed = int(os.environ.get("SNAPVAULT_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"SNAPVAULT_TEST_SEED={seed}")
    for name, bit in flips(made, count, seed):
        damaged = made.copy()
        data = bytearray(damaged.store.objects[name])
        data[bit // 8] ^= 1 << bit % 8
        damaged.store.objects[name] = bytes(data)
        verdict = lab.judge(damaged, scratch, structure=False)
        note = f"{name} bit {bit} (seed {seed})"
        assert verdict.scrubbed and name in verdict.named, note
        assert verdict.findings or verdict.refused, note
        promised(verdict, made, name, scratch, damaged)
        damaged.drop()


def test_flips(made: Lab, scratch: Path) -> None:
    judge_flips(made, scratch, FLIPS)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_flips(made: Lab, scratch: Path) -> None:
    judge_flips(made, scratch, LONG_FLIPS)


# -- everything else --------------------------------------------------------------------------------------------------

Damage = Callable[[Objects, str], bool]  # does it; False: does not apply to this object


def _change(change: Callable[[bytes], bytes]) -> Damage:
    def damage(objects: Objects, name: str) -> bool:
        objects[name], before = change(objects[name]), objects[name]
        return objects[name] != before

    return damage


def _delete(objects: Objects, name: str) -> bool:
    del objects[name]
    return True


def _siblings(objects: Objects, name: str) -> list[str]:
    return sorted((n for n in objects if kind_of(n) == kind_of(name) and n != name), key=lambda n: (len(n), n))


def _sibling_name(name: str) -> str:
    """Another name that an object of this kind could have."""
    if name.startswith(names.KEYSETS):
        return names.keyset(names.keyset_number(name) + 4)
    if name.startswith(names.PACKS):
        return names.pack(PackId(b"\x5a" * 32))
    return re.sub(r"[0-9a-f]{16,}$|[0-9]+$", lambda m: m.group()[::-1], name)


def _double(objects: Objects, name: str) -> bool:
    other = _sibling_name(name)
    if other in objects:
        return False
    objects[other] = objects[name]
    return True


def _swap(objects: Objects, name: str) -> bool:
    for other in _siblings(objects, name):
        if objects[other] != objects[name]:
            objects[name], objects[other] = objects[other], objects[name]
            return True
    return False


def _older(objects: Objects, name: str) -> bool:
    """An object that was written before, under the name of this one (insertion order is age)."""
    before: list[str] = []
    for other in objects:
        if other == name:
            break
        if kind_of(other) == kind_of(name):
            before.append(other)
    if not before or objects[before[-1]] == objects[name]:
        return False
    objects[name] = objects[before[-1]]
    return True


SHAPES: dict[str, Damage] = {
    "empty": _change(lambda b: b""),
    "half": _change(lambda b: b[: len(b) // 2]),
    "one byte short": _change(lambda b: b[:-1]),
    "one byte more": _change(lambda b: b + b"\0"),
    "page of zeros more": _change(lambda b: b + bytes(4096)),
    "zeros": _change(lambda b: bytes(len(b))),
    "zeros at the end": _change(lambda b: b[: len(b) // 2] + bytes(len(b) - len(b) // 2)),
    "twice": _change(lambda b: b + b),
}
MOVES: dict[str, Damage] = {"deleted": _delete, "doubled": _double, "swapped": _swap, "older": _older}

# What carries nothing that is owed to anybody, so that nobody can miss it; or stands as well under another name.
_SITE = (names.CAPABILITIES, names.HEARTBEATS, names.VERIFIED)
_OF_GC = (names.GC, names.SNAPSHOTS + names.GC_PREFIX, names.SESSIONS + names.GC_PREFIX)
UNSEEN = {
    "deleted": (names.SLOTS, names.NOTES, names.TOMBSTONES, *_SITE, *_OF_GC),
    "doubled": (names.SLOTS, "RESCUE-", "rescue-", *_SITE),
    "swapped": (names.SLOTS, *_SITE),
    "older": (names.SLOTS, *_SITE),
}


def each(made: Lab, damages: dict[str, Damage], scratch: Path) -> Iterator[tuple[str, str, Verdict]]:
    for what, damage in damages.items():
        for name in made.store.objects:
            objects = dict(made.store.objects)
            if not damage(objects, name):
                continue
            damaged = made.copy(objects)
            verdict = lab.judge(damaged, scratch, structure=False)
            try:
                promised_for_two(verdict, made, name, objects, scratch, damaged)
            except AssertionError as e:
                raise AssertionError(f"{name} {what}: {e}") from e
            damaged.drop()
            yield name, what, verdict


def promised_for_two(verdict: Verdict, made: Lab, name: str, objects: Objects, scratch: Path, damaged: Lab) -> None:
    """``promised``; a swap damages two objects of one kind, and both snapshots may be gone."""
    changed = {n for n in made.store.objects if objects.get(n) != made.store.objects[n]}
    hidden = verdict.gone - {n.removeprefix(names.SNAPSHOTS) for n in changed}
    assert not hidden, f"it hides {hidden}"
    promised(Verdict(lost=verdict.lost, refused=verdict.refused), made, name, scratch, damaged)


def test_shapes(made: Lab, scratch: Path) -> None:
    """Cut, grown, zeroed: the scrub and the check both name the object."""
    tried = 0
    for name, what, verdict in each(made, SHAPES, scratch):
        assert verdict.scrubbed and name in verdict.named, f"{name} {what} is not found: {verdict}"
        assert verdict.findings or verdict.refused, f"{name} {what} is not found by the check with keys"
        tried += 1
    assert tried >= len(made.store.objects) * len(SHAPES) - 5


def test_moves(made: Lab, scratch: Path) -> None:
    """Deleted, doubled, swapped, replaced by an older one: whole objects in the wrong place, or missing."""
    seen = dict.fromkeys(MOVES, 0)
    for name, what, verdict in each(made, MOVES, scratch):
        found = bool(verdict.findings or verdict.refused)
        assert found or name.startswith(UNSEEN[what]), f"{name} {what} is not found: {verdict}"
        seen[what] += found
    assert all(count >= 15 for count in seen.values()), seen


def test_pins_are_what_catches_the_newest(made: Lab, scratch: Path) -> None:
    """Without what a client remembers, the newest snapshot can be dropped unseen; with it, it cannot."""
    newest = list(made.trees)[-1]
    objects = dict(made.store.objects)
    del objects[names.snapshot(newest)]
    damaged = made.copy(objects)
    assert any(newest in f for f in lab.judge(damaged, scratch).structure)
    damaged.state = None
    assert not any(newest in f for f in lab.judge(damaged, scratch).structure)
