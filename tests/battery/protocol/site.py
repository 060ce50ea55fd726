"""Writers, garbage collections, forget and undelete at one site (docs/concurrency.md).

One chunk is enough.  Whether a blob is lost depends on the packs that hold this blob; packs with several blobs only
add that a pack is condemned for the sake of its other blobs, and sessions add packs without this blob.  So G3 may
condemn any set of packs here: whatever a real G2 chooses, repacking included, for any number of blobs, is among them.
G2 itself is then no step, since safety needs nothing of what it saw.  Nor does G6 list the records of GCs again: a GC
that may yet delete is waited for, or waits for this one, or its slot says GC done.

Sleep and death need no step of their own: such a process takes no step for a while, or ever.  ("progress" adds death as
a step and asks whether from every state all others can still finish.)  Clocks are left out: who is waited for may be
revoked at any time.  Listing one kind of object is one step.

A state is a row of bytes; sets of packs or processes are bit masks.  Process i writes at most one pack with the chunk,
bit i.  Process 0 is an old snapshot with its pack.
"""

from collections.abc import Iterator

from battery.protocol.explore import State, Step

N = 5  # processes at most
PACKS, INDEX, SESSIONS, TOMBS, RECORDS = range(5)  # RECORDS: the GCs whose local/gc record is there
SLOT, PC, VIEW, COND = (5 + N * k for k in range(4))  # a byte each per process; COND: the packs that it condemned
SITE = 5 + 4 * N
EMPTY, COMMIT, ABORT, REVOKED, DONE = range(5)  # what a commit slot holds
SLOT_WORDS = ("empty", "commit", "abort", "revoked", "GC done")
(
    END,
    DEAD,
    W1,
    W2_GC,
    W2_DONE,
    W2_INDEX,
    W3,
    W4,
    W5,
    G1,
    G3,
    G4,
    G5,
    G6_SNAPSHOTS,
    G6_OPEN,
    G7_COPY,
    G7_INDEX,
    G7_FILL,
    G7_UNINDEX,
    G7_DELETE,
    STOP,
) = range(21)
Change = dict[int, int]  # byte -> new value
Moves = Iterator[tuple[str, Change]]


def to(s: State, change: Change) -> State:
    n = bytearray(s)
    for at, value in change.items():
        n[at] = value
    return bytes(n)


def bits(mask: int) -> Iterator[int]:
    while mask:
        yield mask & -mask
        mask &= mask - 1


def subsets(mask: int) -> Iterator[int]:
    sub = mask
    while sub:
        yield sub
        sub = (sub - 1) & mask


class Site:
    """kinds: a letter per process: w writer, u undelete, A B C GCs by rising sid.  old: live, dead, none."""

    def __init__(self, kinds: str, mutant: str = "", old: str = "dead", crash: bool = False, revoke: bool = False):
        self.kinds, self.mutant, self.old, self.crash, self.revoke = "o" + kinds, mutant, old, crash, revoke
        self.all = range(len(self.kinds))
        self.gcs = [i for i in self.all if self.kinds[i].isupper()]
        self.writers = [i for i in self.all if self.kinds[i] in "wu"]
        self.names = [k if k.isupper() else f"{k}{i}" for i, k in enumerate(self.kinds)] + ["?"] * (N - len(self.kinds))

    def first(self) -> State:
        w1 = W2_GC if self.mutant == "W2 before W1" else W1
        start = {PC + i: w1 for i in self.writers} | {PC + g: G1 for g in self.gcs}
        old = {PACKS: 1, INDEX: 1, SLOT: COMMIT, TOMBS: int(self.old == "dead")}
        return to(bytes(SITE), start if self.old == "none" else start | old)

    def live(self, s: State) -> bool:
        return any(s[SLOT + i] == COMMIT and not s[TOMBS] >> i & 1 for i in self.all)

    def broken(self, s: State) -> str:
        places = s[INDEX] & s[PACKS]
        if places & ~self.removed(s) or not self.live(s):
            return ""
        return "a committed snapshot " + ("counts on a pack that GC done named" if places else "has lost its chunk")

    def finished(self, s: State) -> bool:
        return all(s[PC + i] <= DEAD or (self.kinds[i] == "u" and s[PC + i] == W1) for i in self.all)

    def condemned(self, s: State) -> int:
        mask = 0
        for g in self.gcs:
            mask |= s[COND + g] if s[RECORDS] >> g & 1 else 0
        return mask

    def removed(self, s: State) -> int:
        """What the slots with GC done name as removed."""
        mask = 0
        for g in self.gcs:
            mask |= s[COND + g] & 127 if s[SLOT + g] == DONE else 0
        return mask

    def fill(self, s: State, i: int, slot: int) -> Change:
        """Put-if-absent.  Nothing here needs the session object once its slot is filled: it goes at once."""
        return {SLOT + i: s[SLOT + i] or slot, SESSIONS: s[SESSIONS] & ~(1 << i)}

    # What is different at a replica:
    def may_start(self, s: State, i: int) -> bool:
        return True

    def may_condemn(self, s: State) -> int:
        return s[PACKS]

    def waits_for(self, s: State) -> int:
        return s[SESSIONS]

    def may_revoke(self, s: State, i: int) -> bool:
        return True

    def steps(self, s: State) -> list[Step]:
        out = [(who, what, to(s, change)) for who, what, change in self.others(s)]
        for i in self.all:
            if s[PC + i] > DEAD and (s[PC + i] not in (W1, G1) or self.may_start(s, i)):
                moves = self.gc(s, i) if i in self.gcs else self.writer(s, i)
                out += [(self.names[i], what, to(s, change)) for what, change in moves]
        return out

    def writer(self, s: State, i: int) -> Moves:
        m, packs, index, me, pc, view = self.mutant, s[PACKS], s[INDEX], 1 << i, PC + i, VIEW + i
        at, seen, undelete = s[pc], s[view], self.kinds[i] == "u"
        if at == W1:
            first = all(s[PC + j] != W1 for j in self.writers if j < i and self.kinds[j] == self.kinds[i])  # symmetry
            then = W5 if m == "undelete trusts the old places" and undelete else seen or W2_GC
            if (first or m == "W2 before W1") and (s[TOMBS] or not undelete):
                yield "W1 announces itself", {pc: then, view: 0, SESSIONS: s[SESSIONS] | me}
        elif at == W2_GC:
            known = self.removed(s) if m == "W2 reads GC done, then gc" else self.condemned(s)
            yield "W2 lists gc", {pc: W2_DONE, view: known}
        elif at == W2_DONE:
            more = self.condemned(s) if m == "W2 reads GC done, then gc" else self.removed(s)
            more = 0 if m == "W2 does not read GC done" else more
            yield "W2 reads the GC done slots", {pc: W2_INDEX, view: seen | more}
        elif at == W2_INDEX:
            usable = index & (255 if m == "W2 counts absent packs" else packs)
            usable &= 255 if m == "W2 counts condemned packs" else ~seen
            then, what = (W5, "has the chunk already") if usable else (W3, "lacks the chunk")
            late = m == "W2 before W1"
            yield f"W2 lists packs, loads the index: {what}", {pc: W1 if late else then, view: then if late else 0}
        elif at == W3 and undelete and not packs & index:  # its only source is the repository itself
            yield "finds the chunk nowhere: aborts", {pc: END} | self.fill(s, i, ABORT)
        elif at == W3:
            yield "W3 puts its pack", {pc: W4, PACKS: packs | me}
            if not undelete:
                yield "!W2 once more: what have others stored?", {pc: W2_GC}
        elif at == W4:
            yield "W4 puts its index", {pc: W5, view: me, INDEX: index | me}
            if not packs & me:
                yield "W3 again: the reply was lost", {PACKS: packs | me}
        elif at == W5:
            if seen & ~index:
                yield "W4 again: the reply was lost", {INDEX: index | me}
            if s[SLOT + i] == EMPTY or (m == "W5 overwrites the slot" and s[SLOT + i] != COMMIT):
                yield "W5 commits", self.fill(s, i, COMMIT) | {SLOT + i: COMMIT}
                yield "!aborts", {pc: END, view: 0} | self.fill(s, i, ABORT)
            else:  # also W5 again after a lost reply
                yield "W5 reads the slot back and ends", {pc: END, view: 0}

    def gc(self, s: State, g: int) -> Moves:
        m, packs, index, me, pc, view, cond = self.mutant, s[PACKS], s[INDEX], 1 << g, PC + g, VIEW + g, COND + g
        at, seen, mine = s[pc], s[view], s[cond]
        if at == G1:
            yield "announces itself", {pc: G4 if m == "G4 before G3" else G3, SESSIONS: s[SESSIONS] | me}
        elif at == G3:
            stale = 128 if m == "G6 uses the list of G2" and self.live(s) else 0  # bit 7: no pack
            for c in subsets(self.may_condemn(s)):
                then = G5 if m == "G4 before G3" else G4
                yield "G3 condemns", {pc: then, cond: c | stale, RECORDS: s[RECORDS] | me}
            if not self.may_condemn(s):
                yield "G3 has nothing to condemn", {pc: STOP}
        elif at == G4:
            yield "G4 lists sessions", {pc: G3 if m == "G4 before G3" else G5, view: self.waits_for(s) & ~me}
        elif at == G5:
            waits = [a for a in self.all if seen >> a & 1 and s[SLOT + a] == EMPTY]
            if not waits or m == "no G5":
                yield "G5 all slots are filled", {pc: G6_SNAPSHOTS, view: 0}
            elif m != "no tie rule" and any(a < g and a in self.gcs and s[PC + a] != DEAD for a in waits):
                yield "G5 waits for a living GC of smaller sid: stops", {pc: STOP}
        elif at == G6_SNAPSHOTS:
            gone = 0 if m == "G6 gives back what another GC removed" else self.removed(s)
            for p in bits(index & packs & mine & ~gone) if self.live(s) else ():
                spared = {view: index & mine & ~p, cond: mine & ~p}  # listed anew
                yield "G6 has no time to copy: gives a pack back", {pc: G7_FILL} | spared
            if m != "G6 copies nothing" and (mine & 128 if m == "G6 uses the list of G2" else self.live(s)):
                done = 0 if m == "G6 does not read GC done" else self.removed(s)
                yield "G6 lists snapshots: the chunk is live", {pc: G6_OPEN, view: mine | done}
            else:
                yield "G6 lists snapshots: the chunk is dead", {pc: G7_FILL, view: index & mine}
        elif at == G6_OPEN and index & packs & ~seen:
            yield "G6 opens a copy that survives", {pc: G7_FILL, view: index & mine}
        elif at == G6_OPEN and m == "G6 gives a condemned pack back":
            for p in bits(index & packs & mine):
                yield "G6 gives a condemned pack back", {pc: G7_FILL, view: index & mine, cond: mine & ~p}
        elif at == G6_OPEN:
            yield "G6 finds the chunk in condemned packs only", {pc: G7_COPY, view: index & mine}
        elif at == G7_COPY and not index & packs:
            yield "G7 cannot read the chunk any more", {pc: STOP}
        elif at == G7_COPY:
            yield "G7 puts a copy", {pc: G7_INDEX, PACKS: packs | me}
        elif at == G7_INDEX:
            yield "G7 puts its index", {pc: G7_FILL, INDEX: index | me}
        elif at == G7_FILL and m == "G7 fills no slot":
            yield "G7 goes on without its slot", {pc: G7_UNINDEX}
        elif at == G7_FILL and s[SLOT + g] == EMPTY:
            yield "G7 fills its slot with GC done", {pc: G7_UNINDEX} | self.fill(s, g, DONE)
        elif at == G7_FILL:
            yield "G7 is refused its slot", {pc: G7_UNINDEX if m == "G7 deletes though refused" else STOP}
        elif at == G7_UNINDEX and m == "G7 deletes packs, then the index" and packs & mine:
            for p in bits(packs & mine):
                yield "G7 deletes a pack", {PACKS: packs & ~p}
        elif at == G7_UNINDEX:
            yield "G7 deletes the old index", {pc: G7_DELETE, view: mine & 127, INDEX: index & ~seen}
        elif at == G7_DELETE and not seen:
            yield "G7 has deleted all, removes its record", {pc: END, RECORDS: s[RECORDS] & ~me}
        elif at == G7_DELETE:
            for p in bits(seen):
                yield "G7 deletes a pack", {view: seen & ~p, PACKS: packs & ~p}
        elif at == STOP:
            yield "fills its slot with abort, unless filled; ends", {pc: END, view: 0} | self.fill(s, g, ABORT)

    def others(self, s: State) -> Iterator[tuple[str, str, Change]]:
        """What needs no session of its own: cleaning up, revoking, forgetting; and death."""
        m, waited = self.mutant, 255 if self.revoke else 0
        for g in self.gcs:
            if s[PC + g] == G5:
                waited |= s[VIEW + g]
            c, slot = s[COND + g], s[SLOT + g]
            removed = {RECORDS: s[RECORDS] & ~(1 << g), COND + g: 0 if s[PC + g] <= DEAD and slot != DONE else c}
            if s[RECORDS] >> g & 1 and (slot != EMPTY or m == "record removed while its slot is empty"):
                yield "cleaner", f"!removes the record of {self.names[g]}", removed
            if (slot == DONE or m == "a GC without GC done is ended") and c & (s[PACKS] | s[INDEX]):  # g's fence holds
                yield "next GC", f"!ends the deletions of {self.names[g]}", {INDEX: s[INDEX] & ~c, PACKS: s[PACKS] & ~c}
        for i in self.all:
            bit, name = 1 << i, self.names[i]
            if s[SESSIONS] & waited & bit and s[SLOT + i] == EMPTY and self.may_revoke(s, i):
                sure = "" if s[PC + i] == DEAD else "!"  # who lives need not be revoked, who is dead will be
                yield "maintainer", f"{sure}revokes {name}", self.fill(s, i, REVOKED)
            if s[SESSIONS] & bit and m == "session removed while its slot is empty":
                yield "cleaner", f"!removes the session of {name}", {SESSIONS: s[SESSIONS] & ~bit}
            if s[SLOT + i] == COMMIT and not s[TOMBS] & bit:
                emptied = m == "forget empties the slot"
                yield "maintainer", f"!forgets {name}", {SLOT + i: EMPTY} if emptied else {TOMBS: s[TOMBS] | bit}
            if s[TOMBS] & bit and m == "undelete drops the tombstone":
                yield "maintainer", f"!undeletes {name}", {TOMBS: s[TOMBS] & ~bit}
            if self.crash and s[PC + i] > DEAD:
                yield name, "!dies", {PC + i: DEAD}

    def packs(self, mask: int) -> str:
        return "{" + " ".join(n for i, n in enumerate([*self.names, "Ra", "Rb"]) if mask >> i & 1) + "}"

    def words(self, s: State) -> dict[str, str]:
        w = {f"slot of {self.names[i]}:": SLOT_WORDS[s[SLOT + i]] for i in self.all}
        w |= {f"{self.names[g]}'s record": self.packs(s[COND + g]) if s[RECORDS] >> g & 1 else "gone" for g in self.gcs}
        return w | {"packs": self.packs(s[PACKS]), "index": self.packs(s[INDEX])}
