"""The protocol of writers, GCs and replicas, exhaustively; and that each rule is needed (family 6).

"wwA empty" is a site with two writers and GC A that starts empty: w writer, u undelete, A B C GCs by rising session id.
A mutant leaves out or bends one rule, and must lose data or deadlock.
"""

import pytest
from battery.protocol.explore import Result, explore, sweep
from battery.protocol.replica import Replica
from battery.protocol.site import Site

CONFIGS = """wwA; wwA empty; wwwA; wAB; wAB revoke; ABC; wuA live; uAB live; wwA progress; wAB progress;
    uA live progress; Aw replica; A replica x1 progress; A replica runs2; - replica runs2 x1; A replica pulls2"""
LONG = """ABC live; wwAB; wwAB empty; wuAB live; wABC; Aw replica x1; ABw replica; A replica runs2 x1;
    Aw replica pulls2"""
MUTANTS = {
    "W2 before W1": "wA",
    "W2 counts condemned packs": "wA",
    "W2 does not read GC done": "wA; wwA empty",
    "W2 reads GC done, then gc": "wA",
    "W2 counts absent packs": "Aw replica",
    "W5 overwrites the slot": "wA",
    "forget empties the slot": "wA",
    "undelete drops the tombstone": "wA",
    "undelete trusts the old places": "uA live",
    "G4 before G3": "wA; A replica",
    "no G5": "wA; A replica",
    "no tie rule": "AB progress",
    "G6 uses the list of G2": "wA",
    "G6 does not read GC done": "wAB",
    "G6 gives a condemned pack back": "wA",
    "G6 gives back what another GC removed": "wAB",
    "G6 copies nothing": "wA; A replica",
    "G7 fills no slot": "wAB",
    "G7 deletes though refused": "wAB",
    "a GC without GC done is ended": "wA",
    "record removed while its slot is empty": "wA",
    "session removed while its slot is empty": "wA",
    "pull lists slots last": "- replica x1",
    "pull passes over vanished packs": "- replica",
    "pull brings what the source forgot": "- replica",
    "pull announces nothing": "A replica",
    "pull marks nothing": "A replica pulls2",
    "replica condemns what it likes": "A replica",
    "replica revokes sessions of the source": "A replica",
}
HARMLESS = {  # these mutants lose nothing there
    "W2 counts absent packs": "wwA empty; wAB",
    "G7 deletes packs, then the index": "wwA empty; wAB",
}


def build(config: str, mutant: str) -> Site:
    kinds, *o = config.split()
    if "replica" in o:
        return Replica(kinds.strip("-"), mutant, 1 + ("runs2" in o), 1 + ("pulls2" in o), "x1" in o)
    old = "none" if "empty" in o else "live" if "live" in o else "dead"
    return Site(kinds, mutant, old, "progress" in o, "revoke" in o)


def run(config: str, mutant: str = "", limit: int = 2_000_000) -> Result:
    result = explore(build(config, mutant), limit, "progress" in config)
    assert result.verdict != "open", f"more than {limit} states"
    return result


def split(configs: str) -> list[str]:
    return [c.strip() for c in configs.split(";")]


@pytest.mark.parametrize("config", split(CONFIGS))
def test_the_protocol(config: str) -> None:
    result = run(config)
    assert result.verdict == "ok", "\n".join(result.trace)
    assert result.states > 100


@pytest.mark.parametrize(("mutant", "config"), [(m, c) for m, cs in MUTANTS.items() for c in split(cs)])
def test_each_rule_is_needed(mutant: str, config: str) -> None:
    result = run(config, mutant)
    assert result.verdict in ("violation", "stuck") and 2 <= len(result.trace) - 1 <= 28, result


@pytest.mark.parametrize(("mutant", "config"), [(m, c) for m, cs in HARMLESS.items() for c in split(cs)])
def test_what_is_only_tidiness(mutant: str, config: str) -> None:
    result = run(config, mutant)
    assert result.verdict == "ok", "\n".join(result.trace)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("config", split(LONG))
def test_the_protocol_in_larger_configurations(config: str) -> None:
    result = sweep(build(config, ""), 100_000_000)  # up to 10 GB of memory
    assert result.verdict == "ok", "\n".join(result.trace)
