"""Chains of signed, sealed records: what counts, who may write, and what shows when one was dropped or damaged."""

from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault import Repository
from snapvault.format import names
from snapvault.format.chain import ChainRecord, decode_chain, salted
from snapvault.format.keyset import Role
from snapvault.foundation.errors import Damaged, RoleRequired
from snapvault.repository.chain import EVIDENCE, REGISTER, Chain, Link, Series, ends
from snapvault.repository.sealing import seal_part
from snapvault.repository.trust import LABELS, Untrusted, sign
from tests.repos import SEED, again, make

SERIES = pytest.mark.parametrize("series", [REGISTER, EVIDENCE], ids=["register", "evidence"])


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


def client(repo: Repository, role: str, tmp_path: Path) -> Repository:
    if not (tmp_path / role).exists():
        snapvault.add_key(repo, role, role, file=tmp_path / role)
    return snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role))


def chain(repo: Repository, series: Series = REGISTER) -> Chain:
    return Chain(repo.vault.store, repo.vault.ring, series)


def forged(repo: Repository, seed: bytes, series: Series = REGISTER, body: bytes = b"forged", **changes: object) -> str:
    """Put a record that the holder of this key signs though it may not, sealed by any seed; its name."""
    ring = repo.vault.ring
    content, commitment = salted(body)
    context = Chain(repo.vault.store, ring, series)._context(1)
    sealed = seal_part(seed, LABELS[series.kind], context, content)
    fields = {
        "config": ring.config_digest, "epoch": 1, "number": 1, "time": 1, "prevs": (), "commitment": commitment,
        "sealed_digest": blake3(sealed).digest(), **changes,
    }  # fmt: skip
    own = ring.signing
    data = sign(series.kind, ChainRecord(**fields).encode(), own.id, own.signer, sealed)  # type: ignore[arg-type]
    name = series.prefix + blake3(data).hexdigest()
    repo.vault.backend.put(name, [data])
    return name


def said(repo: Repository, series: Series = REGISTER) -> list[bytes]:
    """The bodies that count, of a chain with which nothing is wrong."""
    links, problems = chain(again(repo), series).read()
    assert not problems
    return [link.body for link in links]


@SERIES
def test_one_after_the_other(repo: Repository, series: Series) -> None:
    c = chain(repo, series)
    assert c.read() == ([], [])
    first = c.append(b"one", [])
    second = c.append(b"two", [first])
    links, problems = chain(again(repo), series).read()
    assert links == [first, second] and not problems and ends(links) == [second]
    assert [link.record.number for link in links] == [1, 2] and second.record.prevs == (first.digest,)
    assert [link.body for link in links] == [b"one", b"two"]
    assert snapvault.check(repo).status == snapvault.scrub(repo.url).status == "ok"


def test_what_the_store_sees_tells_nothing_of_the_body(repo: Repository) -> None:
    c = chain(repo)
    one, two = c.append(b"the same", []), c.append(b"the same", [])
    assert one.record.commitment != two.record.commitment  # so it cannot be guessed
    data = repo.vault.backend.get(one.name)
    assert b"the same" not in data and len(repo.vault.backend.get(c.append(b"x" * 2000, []).name)) < len(data) + 50


def test_two_who_did_not_see_one_another(repo: Repository) -> None:
    c = chain(repo)
    first = c.append(b"one", [])
    left, right = c.append(b"left", [first]), chain(again(repo)).append(b"right", [first])
    assert set(ends(c.read()[0])) == {left, right}
    both = c.append(b"both", [left, right])
    assert ends(c.read()[0]) == [both] and both.record.number == 3


@SERIES
def test_who_may_write_and_read(repo: Repository, tmp_path: Path, series: Series) -> None:
    chain(repo, series).append(b"owner", [])
    for role in (Role.MAINTAINER, Role.READER, Role.WRITER, Role.SITE):
        c = chain(client(repo, role, tmp_path), series)
        if role in series.roles:
            c.append(role.encode(), [])
        else:
            with pytest.raises(RoleRequired):
                c.append(role.encode(), [])
        if role not in Role.READERS:
            with pytest.raises(RoleRequired):
                c.read()
    expected = {b"owner", b"maintainer"} | ({b"reader"} if series is EVIDENCE else set())
    assert set(said(repo, series)) == expected
    assert {link.body for link in chain(client(repo, Role.READER, tmp_path), series).read()[0]} == expected


def test_a_reader_of_later_opens_what_was_there_and_a_removed_one_nothing_new(repo: Repository, tmp_path: Path) -> None:
    chain(repo).append(b"old", [])
    reader = client(repo, Role.READER, tmp_path)
    assert [link.body for link in chain(reader).read()[0]] == [b"old"]
    snapvault.remove_key(repo, Role.READER)
    new = chain(repo).append(b"new", [])
    assert new.record.epoch == 2 and 2 not in reader.vault.ring.seeds
    links, problems = chain(reader).read()
    assert [link.body for link in links] == [b"old"] and new.name in problems[0].affected


@pytest.mark.parametrize("role", [Role.READER, Role.WRITER, Role.SITE])
def test_a_revision_by_somebody_who_may_not_does_not_count(repo: Repository, tmp_path: Path, role: str) -> None:
    first = chain(repo).append(b"true", [])
    other = client(repo, role, tmp_path)
    # A writer and a site do not even have the seed that it is sealed by.
    assert bool(other.vault.ring.seeds) == (role == Role.READER)
    name = forged(other, repo.vault.ring.seeds[1], prevs=(first.digest,), number=2)
    links, problems = chain(again(repo)).read()
    assert [link.body for link in links] == [b"true"] == [link.body for link in ends(links)]
    assert [(type(p), p.affected) for p in problems] == [(Untrusted, (name,))]
    assert any(name in f.objects for f in snapvault.check(repo).problems)


def test_evidence_is_no_register(repo: Repository) -> None:
    """The signature is over the kind, so that a reader's evidence cannot stand in the register."""
    link = chain(repo, EVIDENCE).append(b"x", [])
    data = bytearray(repo.vault.backend.get(link.name))
    data[4] = REGISTER.kind
    data[-32:] = blake3(data[:-32]).digest()
    repo.vault.backend.put(names.REGISTER + blake3(data).hexdigest(), [data])
    links, problems = chain(again(repo)).read()
    assert not links and isinstance(problems[0], Untrusted)


@pytest.mark.parametrize(
    "changes",
    [{"config": bytes(32)}, {"sealed_digest": bytes(32)}, {"commitment": bytes(32)}, {"epoch": 9}],
    ids=lambda c: next(iter(c)),
)
def test_what_an_owner_never_wrote(repo: Repository, changes: dict[str, object]) -> None:
    name = forged(repo, repo.vault.ring.seeds[1], **changes)
    links, problems = chain(again(repo)).read()
    assert not links and problems[0].affected == (name,)


def test_one_sealed_by_another_secret(repo: Repository) -> None:
    name = forged(repo, bytes(32))
    links, problems = chain(again(repo)).read()
    assert not links and problems[0].affected == (name,)


def test_a_valid_record_under_another_name(repo: Repository) -> None:
    link = chain(repo).append(b"x", [])
    other = names.REGISTER + "0" * 64
    repo.vault.backend.put(other, [repo.vault.backend.get(link.name)])
    links, problems = chain(again(repo)).read()
    assert [found.name for found in links] == [link.name] and problems[0].affected == (other,)
    assert any(other in f.objects for f in snapvault.scrub(repo.url).problems)


def three(repo: Repository) -> list[Link]:
    links = list[Link]()
    for body in (b"1", b"2", b"3"):
        links.append(chain(repo).append(body, links[-1:]))
    return links


def test_a_missing_link_is_named_with_and_without_a_key(repo: Repository) -> None:
    links = three(repo)
    repo.vault.backend.delete(links[1].name)
    found, problems = chain(again(repo)).read()
    assert [link.body for link in found] == [b"1", b"3"] and problems[0].affected == (links[1].name,)
    for report in (snapvault.check(again(repo)), snapvault.scrub(repo.url)):
        assert report.status == "damaged" and any(links[1].name in f.objects for f in report.problems)


@SERIES
def test_a_damaged_record_is_named_with_and_without_a_key(repo: Repository, series: Series) -> None:
    link = chain(repo, series).append(b"x", [])
    path = Path(repo.url) / link.name
    data = bytearray(path.read_bytes())
    for at in (20, len(data) // 2, len(data) - 1):
        flipped = bytes(data[:at]) + bytes([data[at] ^ 1]) + bytes(data[at + 1 :])
        path.write_bytes(flipped)
        found, problems = chain(again(repo), series).read()
        assert not found and isinstance(problems[0], Damaged) and problems[0].affected == (link.name,)
        for report in (snapvault.check(again(repo)), snapvault.scrub(repo.url)):
            assert report.status == "damaged" and any(link.name in f.objects for f in report.problems)


@SERIES
def test_a_copy_has_the_chain_too(repo: Repository, tmp_path: Path, series: Series) -> None:
    first = chain(repo, series).append(b"one", [])
    snapvault.replicate(repo.url, tmp_path / "copy")
    chain(repo, series).append(b"two", [first])
    snapvault.replicate(repo.url, tmp_path / "copy")
    with snapvault.open(tmp_path / "copy", keys=lambda: SEED) as copy:
        assert [link.body for link in chain(copy, series).read()[0]] == [b"one", b"two"]
        (Path(repo.url) / first.name).write_bytes(b"rotten")
    healed = snapvault.heal(snapvault.Site(repo.url), snapvault.Site(str(tmp_path / "copy")))
    assert healed.status == "ok" and healed.mended_here == (first.name,)
    assert said(repo, series) == [b"one", b"two"]


def test_what_a_maintainer_said_stays_when_it_is_removed(repo: Repository, tmp_path: Path) -> None:
    first = chain(repo).append(b"owner", [])
    maintainer = client(repo, Role.MAINTAINER, tmp_path)
    second = chain(maintainer).append(b"maintainer", [first])
    snapvault.remove_key(repo, Role.MAINTAINER)
    links, problems = chain(again(repo)).read()
    assert not problems and [link.body for link in links] == [b"owner", b"maintainer", b"maintainer"]
    assert links[1] == second and links[2].holder == links[0].holder
    # What it signs from now on says nothing, wherever it says that it stands.
    for prevs in ((), (second.digest,), (links[2].digest,)):
        forged(maintainer, maintainer.vault.ring.seeds[1], prevs=prevs, number=1 + len(prevs))
    again_links, problems = chain(again(repo)).read()
    assert again_links == links and len(problems) == 3 and all(isinstance(p, Untrusted) for p in problems)


def test_a_put_whose_reply_was_lost(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    store = repo.vault.store
    put = store.backend.put_if_absent

    def twice(name: str, data: list[bytes]) -> None:
        put(name, data)
        put(name, data)

    monkeypatch.setattr(store.backend, "put_if_absent", twice)
    link = Chain(store, repo.vault.ring, REGISTER).append(b"x", [])
    assert said(repo) == [b"x"] and decode_chain(link.signed.payload) == link.record
