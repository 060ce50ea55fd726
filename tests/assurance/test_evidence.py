"""Evidence: who signed what, and everything that somebody could do to it afterwards."""

import json
import os
import random
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3

import snapvault
from snapvault import Dataset, DrillRule, EvidenceReport, EvidenceWriter, Repository, Standing
from snapvault.assurance import evidence as module
from snapvault.assurance import ledger as ledger_module
from snapvault.assurance.due import due, last_good
from snapvault.assurance.ledger import Fold, Row
from snapvault.assurance.verdicts import drilled
from snapvault.format import names
from snapvault.format.chain import ChainRecord, salted
from snapvault.format.evidence import decode_evidence, decode_headline, encode_evidence
from snapvault.foundation.errors import RoleRequired
from snapvault.foundation.ids import HolderId
from snapvault.repository.chain import EVIDENCE, Chain, End
from snapvault.repository.keyring import HolderKeys
from snapvault.repository.sealing import seal_part
from snapvault.repository.trust import sign
from tests.assurance.results import NOW, held
from tests.repos import SEED, again, make, objects, traced


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo", cache=tmp_path / "cache", state=tmp_path / "state")


def client(repo: Repository, role: str, tmp_path: Path) -> Repository:
    if not (tmp_path / role).exists():
        snapvault.add_key(again(repo), role, role, file=tmp_path / role)
    return snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role))


def known(repo: Repository, tmp_path: Path) -> Repository:
    """As the client opens it that wrote everything."""
    return again(repo, cache=tmp_path / "cache", state=tmp_path / "state")


def sign_each(repo: Repository, count: int, **options: Any) -> list[str]:
    """So many records, of a drill a day; their names, oldest first."""
    found = []
    for n in range(count):
        (one,) = snapvault.record_evidence(repo, [held(days_ago=count - n, **options)])
        found.append(one.record)
    return found


def standing(repo: Repository, dataset: str = "orders", site: str = "") -> Standing:
    found = snapvault.standings(repo)
    assert found.problems == ()
    return found.of[dataset, site]


def verify(repo: Repository) -> EvidenceReport:
    return snapvault.verify_evidence(again(repo))


def digest_of(name: str) -> bytes:
    return bytes.fromhex(name.removeprefix(names.EVIDENCE))


def bad(report: EvidenceReport) -> set[str]:
    """The objects that a verification names; a check that knows the keys must name them, too."""
    assert report.status == ("damaged" if report.findings else "ok")
    return {name for finding in report.findings for name in finding.objects}


# -- signing and reading ----------------------------------------------------------------------------------------------


def test_what_was_found_can_be_read_again(repo: Repository) -> None:
    results = [held(days_ago=2), held("payments", days_ago=1, value="fail"), held(level="structure", value="not-run")]
    written = [e for r in results for e in snapvault.record_evidence(repo, [r])]
    read = list(snapvault.evidence(again(repo)))
    assert read == written[::-1]
    assert [(e.dataset, e.outcome, e.number, e.by) for e in read] == [
        ("orders", "not-run", 3, "owner"), ("payments", "fail", 2, "owner"), ("orders", "pass", 1, "owner"),
    ]  # fmt: skip
    assert [e.dataset for e in snapvault.evidence(again(repo), dataset="payments")] == ["payments"]
    assert read[2].result == json.loads(json.dumps(results[0].to_dict()))
    assert read[2].to_dict()["record"] == written[0].record
    assert bad(verify(repo)) == set() and verify(repo).records == verify(repo).results == 3
    assert snapvault.check(again(repo)).status == snapvault.scrub(repo.url).status == "ok"


def test_the_store_sees_no_names(repo: Repository) -> None:
    (one,) = snapvault.record_evidence(repo, [held("a-name-that-is-secret")])
    assert b"secret" not in Path(repo.url, one.record).read_bytes()


def test_many_results_share_records(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    with EvidenceWriter(repo) as writer:
        for n in range(7):
            writer.add(held(f"dataset-{n}"))
        assert len(list(repo.vault.backend.list(names.EVIDENCE))) == 2
    found = list(snapvault.evidence(again(repo)))
    assert len(found) == 7 and {e.number for e in found} == {1, 2, 3}


def test_what_waits_is_signed_when_something_breaks(repo: Repository) -> None:
    with pytest.raises(KeyboardInterrupt), EvidenceWriter(repo) as writer:
        writer.add(held())
        raise KeyboardInterrupt
    assert len(list(snapvault.evidence(again(repo)))) == 1


def test_what_waits_too_long_is_signed(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.0)
    writer = EvidenceWriter(repo)
    writer.add(held())
    assert len(list(snapvault.evidence(again(repo)))) == 1


def test_who_may_sign_and_read(repo: Repository, tmp_path: Path) -> None:
    for role in ("reader", "maintainer", "writer", "site"):
        other = client(repo, role, tmp_path)
        if role in ("reader", "maintainer"):
            (one,) = snapvault.record_evidence(other, [held(role)])
            assert one.by == role
        else:
            for call in (snapvault.standings, lambda r: snapvault.record_evidence(r, [held()])):
                with pytest.raises(RoleRequired):
                    call(other)
    assert {e.by for e in snapvault.evidence(again(repo))} == {"reader", "maintainer"} and bad(verify(repo)) == set()


# -- where a dataset stands -------------------------------------------------------------------------------------------


def test_where_a_dataset_stands(repo: Repository) -> None:
    for result in (
        held(days_ago=9, level="alive"), held(days_ago=8), held(days_ago=7, level="sample"),
        held(days_ago=6, level="sample", value="fail"), held(days_ago=5, level="sample", value="not-run"),
        held(days_ago=4, site="second"),
    ):  # fmt: skip
        snapvault.record_evidence(repo, [result])
    found = standing(repo)
    assert found.last is not None and (found.last.outcome, found.last.began) == ("not-run", NOW - timedelta(days=5))
    assert found.failed is not None and found.failed.began == NOW - timedelta(days=6)
    began = {level: e.began for level, e in found.passed.items()}
    assert began == {level: NOW - timedelta(days=n) for level, n in (("alive", 9), ("full", 8), ("sample", 7))}
    assert (found.drills, found.samples) == (4, {"seed": 2})
    before = found.before("seed")
    assert (before.drills, before.samples, found.before("other").samples) == (4, 2, 0)
    assert standing(repo, site="second").drills == 1


def test_the_order_in_which_records_come_does_not_matter() -> None:
    rows = []
    for n in range(12):
        result = held(
            days_ago=n % 7, level=("full", "sample", "alive")[n % 3], value=("pass", "fail", "not-run")[n % 4 % 3]
        )
        ((_, text),) = decode_evidence(encode_evidence([result.to_dict()]))
        rows.append(Row(bytes([n]) * 32, n + 1, n, HolderId(bytes(16)), decode_headline(text), text))
    folds = []
    for seed in range(20):
        random.Random(seed).shuffle(rows)
        folds.append(Fold())
        for row in rows:
            folds[-1].add(row)
    assert all(fold == folds[0] for fold in folds) and folds[0].drills == 9


def test_only_what_is_new_is_read(repo: Repository, tmp_path: Path) -> None:
    sign_each(repo, 5)
    reader = known(repo, tmp_path)
    store = traced(reader)
    first = snapvault.standings(reader)
    assert [c.name for c in store.log if c.method == "get" and c.name.startswith(names.EVIDENCE)] == []
    (new,) = sign_each(again(repo), 1)
    reader = known(repo, tmp_path)
    store = traced(reader)
    second = snapvault.standings(reader)
    assert [c.name for c in store.log if c.method == "get" and c.name.startswith(names.EVIDENCE)] == [new]
    assert (first.records, second.records, second.results) == (5, 6, 6)
    assert second == snapvault.standings(again(repo))


def test_a_table_that_somebody_altered_is_not_believed(repo: Repository, tmp_path: Path) -> None:
    sign_each(repo, 2, value="fail")
    (table,) = (p for p in (tmp_path / "cache").rglob("evidence/*") if len(p.name) == 32)
    table.write_bytes(table.read_bytes().replace(b"fail", b"pass"))
    assert standing(known(repo, tmp_path)).passed == {}


def test_a_table_that_is_none_is_made_again(repo: Repository, tmp_path: Path) -> None:
    sign_each(repo, 2)
    ledger = module.Ledger(repo.vault)
    place = ledger._place()
    assert place is not None
    repo.vault.cache.put_sealed(*place, [b"\xc1"])
    assert standing(known(repo, tmp_path)).drills == 2


def test_two_who_drill_at_once(repo: Repository) -> None:
    left, right = again(repo), again(repo)
    ledgers = [module.Ledger(r.vault) for r in (left, right)]
    for ledger in ledgers:
        ledger.update()
    for one, ledger, days in ((left, ledgers[0], 3), (right, ledgers[1], 2)):
        body = encode_evidence([held(days_ago=days).to_dict()])
        ledger.add(one.vault.evidence.append(body, ledger.ends()))
    (last,) = snapvault.record_evidence(again(repo), [held(days_ago=1)])
    assert last.number == 2 and standing(again(repo)).drills == 3 and bad(verify(repo)) == set()


# -- what somebody does to it -----------------------------------------------------------------------------------------


def test_a_missing_record_is_named(repo: Repository, tmp_path: Path) -> None:
    one, two, three = sign_each(repo, 3)
    Path(repo.url, two).unlink()
    assert bad(verify(repo)) == {two}
    assert any("is missing" in f.message for f in verify(repo).findings)
    found = snapvault.standings(known(repo, tmp_path))
    assert found.results == 2 and {n for p in found.problems for n in p.affected} == {two}
    assert {one, three} == {e.record for e in snapvault.evidence(again(repo))}


def test_an_edited_record_is_named(repo: Repository) -> None:
    _, two, _ = sign_each(repo, 3)
    data = bytearray(Path(repo.url, two).read_bytes())
    for at in (20, len(data) // 2, len(data) - 40):
        data[at] ^= 1
        Path(repo.url, two).write_bytes(data)
        assert two in bad(verify(repo))
        assert {e.number for e in snapvault.evidence(again(repo))} == {1, 3}
        data[at] ^= 1


def test_an_edited_record_under_the_name_of_its_bytes(repo: Repository) -> None:
    _, two, _ = sign_each(repo, 3)
    data = bytearray(Path(repo.url, two).read_bytes())
    data[len(data) // 2] ^= 1
    data[-32:] = blake3(data[:-32]).digest()
    edited = names.EVIDENCE + blake3(data).hexdigest()
    Path(repo.url, two).unlink()
    Path(repo.url, edited).write_bytes(data)
    assert bad(verify(repo)) == {two, edited}


def test_the_newest_record_is_dropped(repo: Repository, tmp_path: Path) -> None:
    """Whoever saw it says so; and so does everybody, from its next record on."""
    *_, last = sign_each(repo, 3)
    Path(repo.url, last).unlink()
    assert bad(verify(repo)) == set(), "nobody else can know"
    found = snapvault.standings(known(repo, tmp_path))
    assert {n for p in found.problems for n in p.affected} == {last} and "this client saw" in str(found.problems[0])
    assert snapvault.check(known(repo, tmp_path)).status == "damaged" and snapvault.check(again(repo)).status == "ok"
    snapvault.record_evidence(known(repo, tmp_path), [held()])
    assert bad(verify(repo)) == {last}


def forged(repo: Repository, keys: HolderKeys, seed: bytes, **changes: Any) -> str:
    """Put a record that somebody signs who may not; its name."""
    ring = repo.vault.ring
    content, commitment = salted(changes.pop("body", encode_evidence([held("forged").to_dict()])))
    sealed = seal_part(seed, "evidence", Chain(repo.vault.store, ring, EVIDENCE)._context(1), content)
    fields = {
        "config": ring.config_digest, "epoch": 1, "number": 1, "time": 1, "prevs": (), "commitment": commitment,
        "sealed_digest": blake3(sealed).digest(), **changes,
    }  # fmt: skip
    data = sign(EVIDENCE.kind, ChainRecord(**fields).encode(), ring.signing.id, keys.signer, sealed)
    name = names.EVIDENCE + blake3(data).hexdigest()
    repo.vault.backend.put(name, [data])
    return name


def test_evidence_from_a_wrong_key(repo: Repository, tmp_path: Path) -> None:
    (good,) = sign_each(repo, 1)
    seed = repo.vault.ring.seeds[1]
    stranger = forged(repo, HolderKeys(os.urandom(32), os.urandom(32)), seed)
    writer = client(repo, "writer", tmp_path)
    by_writer = forged(repo, writer.vault.ring.signing, seed)
    assert bad(verify(repo)) == {stranger, by_writer}
    assert [e.record for e in snapvault.evidence(again(repo))] == [good]
    assert ("forged", "") not in snapvault.standings(again(repo)).of


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b'{"schema":2,"results":[]}', b'{"schema":1,"results":[{}]}', b'{"schema":1}'],
)
def test_a_body_that_is_malformed_says_nothing(repo: Repository, body: bytes) -> None:
    name = forged(repo, repo.vault.ring.signing, repo.vault.ring.seeds[1], body=body)
    assert bad(verify(repo)) == {name} and list(snapvault.evidence(again(repo))) == []
    sign_each(repo, 1)
    assert {e.dataset for e in snapvault.evidence(again(repo))} == {"orders"}
    assert [p.affected for p in snapvault.standings(repo).problems] == [(name,)], "also from the table"


@pytest.mark.parametrize(
    "changes",
    [
        {"recovery": 10**18}, {"recovery": -1}, {"bytes": 1 << 60}, {"age": -(1 << 60)},
        {"began": "0001-01-01T00:00:00+14:00"}, {"snapshot": {"id": "ab", "time": "9999-12-31T23:59:59-12:00"}},
        {"outcome": "good"}, {"began": "2026-01-01T00:00:00"},
    ],
    ids=str,
)  # fmt: skip
def test_a_result_that_says_what_none_can_says_nothing(repo: Repository, changes: dict[str, Any]) -> None:
    body = encode_evidence([held().to_dict() | changes])
    name = forged(repo, repo.vault.ring.signing, repo.vault.ring.seeds[1], body=body)
    assert bad(verify(repo)) == {name} and snapvault.standings(again(repo)).of == {}


def test_a_drill_of_tomorrow_says_nothing(repo: Repository) -> None:
    """Else a clock that is wrong would stand before everything that comes."""
    snapvault.record_evidence(repo, [held(days_ago=-3)])
    found = snapvault.standings(again(repo))
    assert found.of == {} and "still to come" in str(found.problems[0])


@pytest.mark.parametrize("ahead", [True, False])
def test_a_clock_that_was_wrong_leaves_nothing_behind(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """What one wrong look took for past, or for future, is judged anew at the next."""
    snapvault.record_evidence(again(repo), [held(days_ago=-5 if ahead else 5)])
    wrong = NOW + timedelta(days=10 if ahead else -10)
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "now", lambda: wrong)
        looked = snapvault.standings(known(repo, tmp_path))
        assert bool(looked.of) is ahead
    found = snapvault.standings(known(repo, tmp_path))
    assert (bool(found.of), bool(found.problems)) == (not ahead, ahead)


def test_a_failure_by_a_clock_that_was_set_back_is_no_old_story(repo: Repository) -> None:
    """It stands in the chain after what passed."""
    for days_ago, value in ((5, "fail"), (2, "pass"), (9000, "fail")):
        snapvault.record_evidence(repo, [held(days_ago=days_ago, value=value)])
    found = standing(repo)
    assert (found.told[0].outcome, found.told[0].number) == ("fail", 3)
    mark = drilled(found, "restored")
    assert mark is not None and mark.value == "bad" and last_good(found, "full") is None
    snapvault.record_evidence(repo, [held(days_ago=1)])
    assert standing(repo).told[0].number == 4 and last_good(standing(repo), "full") == NOW - timedelta(days=1)


def test_a_record_out_of_its_place(repo: Repository) -> None:
    """Signed by whoever may; docs/verify_evidence.py says the same."""
    (one,) = sign_each(repo, 1)
    name = forged(repo, repo.vault.ring.signing, repo.vault.ring.seeds[1], number=7, prevs=(digest_of(one),))
    assert bad(verify(repo)) == {name} and "its place in the chain" in verify(repo).findings[0].message


def test_a_snapshot_of_the_future_is_not_waited_for(repo: Repository) -> None:
    """Once it is forgotten, those of today count again."""
    snapshots = [SimpleNamespace(id="ab", time=NOW + timedelta(days=d), host="h", holder="o", partial=False)
                 for d in (70_000, -1)]  # fmt: skip
    for snapshot in snapshots:
        snapvault.record_evidence(repo, [held(snapshot=snapshot)])
    assert standing(repo).newest == NOW - timedelta(days=1)


def test_the_shape_of_the_kept_table_has_a_version() -> None:
    """Whoever changes what is kept raises VERSION, and then this: a table of an older shape must not be read."""
    table = ledger_module._Table({bytes([1]) * 32: 1}, {bytes([2]) * 32}, {bytes([1]) * 32: 1}, 1)
    ((head, text),) = decode_evidence(encode_evidence([held().to_dict() | {"began": "2026-01-01T00:00:00.000Z"}]))
    text = json.dumps({**json.loads(text), **dict.fromkeys(("ended", "versions"))}, sort_keys=True).encode()
    table.folds["orders", ""] = Fold()
    table.folds["orders", ""].add(Row(bytes([1]) * 32, 1, 5, HolderId(bytes(16)), head, text))
    kept = ledger_module._dump(table)
    assert ledger_module._load(memoryview(kept)) == table
    assert (ledger_module.VERSION, blake3(kept).hexdigest()[:16]) == (2, "f95f9f02ff8bfb7d")


def test_a_removed_reader_leaves_its_evidence_and_adds_none(repo: Repository, tmp_path: Path) -> None:
    reader = client(repo, "reader", tmp_path)
    sign_each(reader, 2)
    snapvault.remove_key(again(repo), "reader")
    assert standing(again(repo)).drills == 2 and bad(verify(repo)) == set()
    assert {e.by for e in snapvault.evidence(again(repo))} == {"reader"}
    later = forged(repo, reader.vault.ring.signing, reader.vault.ring.seeds[1])
    assert bad(verify(repo)) == {later}
    assert snapvault.standings(known(repo, tmp_path)).of["orders", ""].drills == 2


def test_a_record_that_comes_late(repo: Repository, tmp_path: Path) -> None:
    """After one that follows it: it is missing until then, counts though its key was removed, and is no end."""
    reader = client(repo, "reader", tmp_path)
    (name,) = sign_each(reader, 1)
    hidden = Path(repo.url, name).read_bytes()
    Path(repo.url, name).unlink()
    snapvault.remove_key(again(repo), "reader")  # sees no evidence to vouch for
    Path(repo.url, name).write_bytes(hidden)
    assert snapvault.standings(known(repo, tmp_path)).of == {}
    Path(repo.url, name).unlink()
    follows = again(repo).vault.evidence.append(encode_evidence([]), [End(blake3(hidden).digest(), 1)])
    assert [p.affected for p in snapvault.standings(known(repo, tmp_path)).problems] == [(name,)]
    Path(repo.url, name).write_bytes(hidden)
    assert standing(known(repo, tmp_path)).drills == 1
    snapvault.record_evidence(known(repo, tmp_path), [held()])
    last = max(again(repo).vault.evidence.read()[0], key=lambda link: link.number)
    assert last.record.prevs == (follows.digest,)


# -- beside other things ----------------------------------------------------------------------------------------------


def test_evidence_is_at_every_copy_and_what_is_signed_there_comes_back(repo: Repository, tmp_path: Path) -> None:
    (first,) = sign_each(repo, 1)
    copy, here = snapvault.Site(str(tmp_path / "copy")), snapvault.Site(repo.url)
    snapvault.replicate(here, copy)
    with snapvault.open(copy.url, keys=lambda: SEED) as there:
        (second,) = snapvault.record_evidence(there, [held(site="second")])
        forged(there, HolderKeys(os.urandom(32), os.urandom(32)), there.vault.ring.seeds[1])
    snapvault.exchange_attestations(here, copy)
    assert {n for n in objects(repo) if n.startswith(names.EVIDENCE)} == {first, second.record}
    assert standing(again(repo), site="second").drills == 1


def test_a_prune_leaves_it_alone(repo: Repository) -> None:
    written = sign_each(repo, 2)
    snapvault.plan_prune(again(repo)).execute()
    assert {n for n in objects(repo) if n.startswith(names.EVIDENCE)} == set(written)


# -- what is due ------------------------------------------------------------------------------------------------------


def test_what_is_due(repo: Repository) -> None:
    week = timedelta(days=7)
    datasets = [
        Dataset(name, drill=DrillRule(week, level))
        for name, level in (
            ("never", "full"), ("fresh", "full"), ("old", "full"), ("more", "sample"), ("less", "alive"),
            ("failed", "full"), ("mended", "full"), ("untold", "full"), ("elsewhere", "full"),
        )
    ]  # fmt: skip
    results = [
        held("fresh", days_ago=6), held("old", days_ago=8), held("more", days_ago=1, level="alive"),
        held("less", days_ago=1), held("failed", days_ago=3), held("failed", days_ago=2, value="fail"),
        held("mended", days_ago=3, value="fail"), held("mended", days_ago=2),
        held("untold", days_ago=1, value="not-run"), held("elsewhere", days_ago=1, site="second"),
    ]  # fmt: skip
    snapvault.record_evidence(repo, results)
    found = snapvault.standings(repo)
    names_of = [d.name for d in due([*datasets, Dataset("no rule")], found, "", NOW)]
    assert names_of == ["elsewhere", "failed", "less", "never", "untold", "old"]
    assert [d.name for d in due(datasets[-1:], found, "second", NOW)] == []
