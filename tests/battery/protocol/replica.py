"""A source and its replica: pulls beside garbage collections at both, and promotion.

The site is the replica: processes 0 and 1 are the snapshots X0 and X1 of the source, then come the replica's own GCs,
and a writer that starts after promotion.  The source is abstract: what remains of its fence, which the model of one
site checks, is that nothing commits on a condemned pack once its GC has looked (G6).
"""

from battery.protocol.explore import State, Step
from battery.protocol.site import (
    COMMIT,
    INDEX,
    PACKS,
    REVOKED,
    SESSIONS,
    SITE,
    SLOT,
    TOMBS,
    Moves,
    Site,
    bits,
    subsets,
    to,
)  # fmt: skip

S_PACKS, S_INDEX, S_SLOTS, S_TOMBS, S_RUN, S_PC, S_COND1, S_COND2, R_NAMED, PROMOTED, PULLS = range(SITE, SITE + 11)
P_LIST, P_ANNOUNCE, P_INDEX, P_PACKS, P_COPY, P_PUT, P_TOMBS, P_SLOTS = range(8)  # a pull: where, slots, index, packs
RA, RB = 32, 64  # packs with copies, and GC done slots, of the two GC runs at the source


class Replica(Site):
    def __init__(self, kinds: str, mutant: str = "", runs: int = 1, pulls: int = 1, x1: bool = False):
        super().__init__("x" + kinds, mutant, old="none")
        self.names[:2], self.runs, self.pulls, self.x1 = ["X0", "X1"], runs, pulls, x1
        self.hasty = mutant == "replica revokes sessions of the source"

    def first(self) -> State:  # an empty replica; X0 at the source
        return to(super().first() + bytes(10 + 4 * self.pulls), {S_PACKS: 1, S_INDEX: 1, S_SLOTS: 1})

    def named(self, s: State, slots: int) -> int:
        """The packs that these GC done records name as removed."""
        return (s[S_COND1] if slots & RA else 0) | (s[S_COND2] if slots & RB else 0)

    def broken(self, s: State) -> str:
        if s[S_SLOTS] & ~s[S_TOMBS] & 3 and not s[S_PACKS] & s[S_INDEX]:
            return "the source lost a chunk: the abstraction is wrong"
        if not s[PROMOTED] and REVOKED in s[SLOT : SLOT + 2]:
            return "conflict: the replica revoked a session that may have committed at the source"
        return "" if s[INDEX] & s[PACKS] or not self.live(s) else "a snapshot at the replica has lost its chunk"

    def finished(self, s: State) -> bool:  # the replica has what the source has
        here = sum(1 << x for x in (0, 1) if s[SLOT + x] == COMMIT)
        return s[PROMOTED] == 1 or not s[S_SLOTS] & ~s[S_TOMBS] & 3 & ~here

    def may_start(self, s: State, i: int) -> bool:
        return s[PROMOTED] == 1 or i in self.gcs

    def waits_for(self, s: State) -> int:
        return s[SESSIONS] & (255 if s[PROMOTED] or self.hasty else ~3)

    def may_revoke(self, s: State, i: int) -> bool:
        return s[PROMOTED] == 1 or i > 1 or self.hasty

    def may_condemn(self, s: State) -> int:
        free = s[PROMOTED] or self.mutant == "replica condemns what it likes"
        return s[PACKS] & (255 if free else s[R_NAMED])

    def removed(self, s: State) -> int:
        return super().removed(s) | s[R_NAMED]

    def steps(self, s: State) -> list[Step]:
        out = super().steps(s)
        for at in range(PULLS, len(s), 4):
            who = f"pull {(at - PULLS) // 4 + 1}"
            out += [(who, what, to(s, change)) for what, change in self.pull(s, at)]
        if not s[PROMOTED]:
            out += [("source", what, to(s, change)) for what, change in self.source(s)]
            out.append(("owner", "!the source is lost; promotes the replica", self.promoted(s)))
        return out

    def promoted(self, s: State) -> State:
        """Of the pulls, only one that slept just before a put at the replica can go on."""
        n = bytearray(s)
        n[S_PACKS:R_NAMED] = bytes(R_NAMED - S_PACKS)
        n[PROMOTED] = 1
        for at in range(PULLS, len(n), 4):
            if not (n[at] in (P_PUT, P_SLOTS) or (n[at] == P_COPY and not n[at + 3])):
                n[at : at + 4] = bytes(4)
        return bytes(n)

    def source(self, s: State) -> Moves:
        packs, index, slots, tombs, run, at = s[S_PACKS], s[S_INDEX], s[S_SLOTS], s[S_TOMBS], s[S_RUN], s[S_PC]
        looked = (s[S_COND1] if run == 2 or at != 1 else 0) | (s[S_COND2] if at != 1 else 0)
        cond, copy = (s[S_COND2], RB) if run == 2 else (s[S_COND1], RA)
        if self.x1 and not slots & 2:
            if packs & index & ~looked:
                yield "X1 commits", {S_SLOTS: slots | 2}
            elif not packs & 2:
                yield "puts X1's pack", {S_PACKS: packs | 2}
            else:
                yield "puts X1's index", {S_INDEX: index | 2}
        for x in bits(slots & ~tombs & 3):
            yield f"!forgets X{x - 1}", {S_TOMBS: tombs | x}
        if at == 0 and run < self.runs:
            for c in subsets(packs):
                yield "!G3 condemns", {S_RUN: run + 1, S_COND1 + run: c, S_PC: 1}
        elif at == 1:
            must = slots & ~tombs & 3 and not packs & index & ~(s[S_COND1] | s[S_COND2])
            yield "G6 looks: " + ("must copy" if must else "nothing to copy"), {S_PC: 2 if must else 4}
        elif at == 2:
            yield "G7 puts a copy", {S_PACKS: packs | copy, S_PC: 3}
        elif at == 3:
            yield "G7 puts its index", {S_INDEX: index | copy, S_PC: 4}
        elif at == 4:
            yield "G7 fills its slot with GC done", {S_SLOTS: slots | copy, S_PC: 5}
        elif at == 5:
            yield "G7 deletes the old index", {S_INDEX: index & ~cond, S_PC: 6}
        elif at == 6:
            for p in bits(packs & cond):
                yield "G7 deletes a pack", {S_PACKS: packs & ~p, S_PC: 6 if packs & ~p & cond else 0}
            if not packs & cond:
                yield "GC ends", {S_PC: 0}

    def pull(self, s: State, pc: int) -> Moves:
        """The writer's protocol, played again at the replica for the slots listed first."""
        m, up, slot, ind, pack = self.mutant, not s[PROMOTED], pc + 1, pc + 2, pc + 3
        at, slots, index, todo = s[pc], s[slot], s[ind], s[pack]
        if at == P_LIST and up:
            yield "lists the slots of the source", {pc: P_ANNOUNCE, slot: s[S_SLOTS]}
        elif at == P_ANNOUNCE:
            new = 0 if m == "pull announces nothing" else sum(x for x in bits(slots & 3) if not s[SLOT + x - 1])
            yield "W1 puts their session objects", {pc: P_INDEX, SESSIONS: s[SESSIONS] | new}
        elif at == P_INDEX and up:
            need = s[S_INDEX] & ~self.named(s, slots)
            yield "reads the index of the source", {pc: P_PACKS, ind: s[S_INDEX], pack: need}
        elif at == P_PACKS:
            yield "W2 lists packs at the replica", {pc: P_COPY, pack: todo & ~s[PACKS]}
        elif at == P_COPY and not todo:
            yield "W3 has all packs", {pc: P_PUT}
        elif at == P_COPY and up:
            for p in bits(todo):
                if p & s[S_PACKS]:
                    yield "W3 copies a pack", {pack: todo & ~p, PACKS: s[PACKS] | p}
                elif m == "pull passes over vanished packs":
                    yield "W3 finds a pack gone, goes on", {pack: todo & ~p}
                else:
                    yield "W3 finds a pack gone: begins again", {pc: P_LIST, slot: 0, ind: 0, pack: 0}
        elif at == P_PUT:
            yield "W4 puts the index", {pc: P_TOMBS, ind: 0, INDEX: s[INDEX] | index}
        elif at == P_TOMBS and up:
            listed = s[S_SLOTS] if m == "pull lists slots last" else slots
            gone = 0 if m == "pull brings what the source forgot" else listed & s[S_TOMBS]
            never = 0 if m == "pull marks nothing" else sum(x for x in bits(gone) if not s[SLOT + x - 1])
            change = {pc: P_SLOTS, slot: listed & ~gone, TOMBS: s[TOMBS] | never}
            yield "lists source tombstones, marks what never came", change
        elif at == P_SLOTS:
            for x in bits(slots):
                put = {R_NAMED: s[R_NAMED] | self.named(s, x)} if x > 2 else self.fill(s, x - 1, COMMIT)
                yield "W5 puts a slot", {slot: slots & ~x} | put
            if not slots:
                yield "ends", {pc: P_LIST}

    def words(self, s: State) -> dict[str, str]:
        w = super().words(s) | {"named as removed": self.packs(self.named(s, s[S_SLOTS]))}
        return w | {"source packs": self.packs(s[S_PACKS]), "source index": self.packs(s[S_INDEX])}
