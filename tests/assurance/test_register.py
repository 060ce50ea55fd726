"""The register: revisions that nothing drops out of unseen, whoever holds the store, and whoever writes at once."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import snapvault
from snapvault import Register, Repository, RepositoryNotFound
from snapvault.assurance.declaration import Declaration, declare
from snapvault.assurance.register import import_register, read_register, retire
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.register import RegisterRecord, RetiredRow
from snapvault.foundation.errors import Conflict, Damaged, InvalidInput, KeyRejected, RoleRequired
from snapvault.repository.chain import ends
from snapvault.repository.trust import Untrusted
from tests.repos import SEED, again, make

ORDERS, WEB = {"source": "/srv/orders", "rpo": "24h"}, {"owner": "Ada"}


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


def declared(**datasets: Any) -> Declaration:
    return declare({"schema": 1, "datasets": datasets}, "the test")


def client(repo: Repository, role: str, tmp_path: Path) -> Repository:
    if not (tmp_path / role).exists():
        snapvault.add_key(repo, role, role, file=tmp_path / role)
    return snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role))


def read(repo: Repository, **options: Any) -> Register:
    found = read_register(again(repo, **options))
    assert found is not None
    return found


def revisions(repo: Repository) -> list[str]:
    """Names, oldest first."""
    return [link.name for link in repo.vault.register.read()[0]]


def put_aside(repo: Repository, name: str) -> bytes:
    """Hide the object from whoever comes next."""
    path = Path(repo.url) / name
    data = path.read_bytes()
    path.unlink()
    return data


def flip(repo: Repository, name: str) -> None:
    path = Path(repo.url) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_nothing_is_declared_at_first(repo: Repository) -> None:
    assert read_register(repo) is None


def test_an_import_stands_in_place_of_the_one_before(repo: Repository) -> None:
    plan = import_register(repo, declared(orders=ORDERS, web=WEB), dry_run=True)
    assert (plan.added, plan.written, plan.revision) == (("orders", "web"), False, 0) and read_register(repo) is None
    first = import_register(repo, declared(orders=ORDERS, web=WEB))
    assert (first.added, first.written, first.revision, first.status) == (("orders", "web"), True, 1, "ok")
    second = import_register(repo, declared(orders={**ORDERS, "rpo": "4h"}, web=WEB, new={}))
    assert (second.added, second.changed, second.revision) == (("new",), ("orders",), 2)
    assert second.changes == {"orders": {"rpo": (24 * 3600, 4 * 3600)}} and not first.changes
    found = read(repo)
    assert found.datasets == declared(orders={**ORDERS, "rpo": "4h"}, web=WEB, new={}).datasets
    assert (found.revision, found.by, found.status, found.retired) == (2, "owner", "ok", {})
    same = import_register(repo, found.declaration)
    assert not same.written and same.revision == 2 and len(revisions(repo)) == 2
    assert snapvault.check(repo).status == "ok"


def test_a_row_that_disappears_is_refused(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS, web=WEB, mail={}))
    with pytest.raises(InvalidInput, match=r"2 are missing: orders, mail; .*register retire orders mail --reason") as e:
        import_register(repo, declared(web=WEB))
    assert e.value.affected == ("orders", "mail") and read(repo).revision == 1


def test_a_row_is_retired_with_a_reason(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS, web=WEB))
    done = retire(repo, "orders", " moved away ")
    assert (done.retired, done.datasets, done.revision) == (("orders",), 1, 2)
    found = read(repo)
    assert list(found.datasets) == ["web"]
    assert (found.retired["orders"].reason, found.retired["orders"].by) == ("moved away", "owner")
    import_register(repo, declared(web={**WEB, "tier": 2}))  # a later revision still says so
    assert read(repo).retired == found.retired
    back = import_register(repo, declared(web=WEB, orders=ORDERS))
    assert back.revived == back.added == ("orders",)
    assert list(read(repo).datasets) == ["web", "orders"] and not read(repo).retired


@pytest.mark.parametrize(
    ("names_", "reason", "message"),
    [
        (["orders", "nothing"], "x", "'nothing' is not declared"),
        (["old"], "x", "'old' was retired by owner"),
        (["orders"], " ", "for a reason"),
        (["orders"], "a\nb", "one line"),
    ],
)
def test_what_cannot_be_retired(repo: Repository, names_: list[str], reason: str, message: str) -> None:
    import_register(repo, declared(orders=ORDERS, old={}))
    retire(repo, "old", "gone")
    with pytest.raises(InvalidInput, match=message):
        retire(repo, names_, reason)
    assert list(read(repo).datasets) == ["orders"]


def test_more_than_a_register_holds(repo: Repository) -> None:
    with pytest.raises(InvalidInput, match="does not hold these 900 datasets"):
        import_register(repo, declared(**{f"d{n}": {"owner": "x" * 10_000} for n in range(900)}))
    assert read_register(repo) is None


@pytest.mark.parametrize("role", [Role.MAINTAINER, Role.READER, Role.WRITER, Role.SITE])
def test_who_may_do_what(repo: Repository, tmp_path: Path, role: str) -> None:
    import_register(repo, declared(orders=ORDERS))
    other = client(repo, role, tmp_path)
    if role == Role.MAINTAINER:
        import_register(other, declared(orders=ORDERS, web=WEB))
        assert (read(repo).by, read(repo).revision) == ("maintainer", 2)
        return
    for change in (
        lambda: import_register(other, declared(orders=ORDERS, web=WEB)),
        lambda: retire(other, "orders", "x"),
    ):
        with pytest.raises(RoleRequired):
            change()
    if role == Role.READER:
        assert read_register(other) == read_register(repo)
    else:
        with pytest.raises(RoleRequired):
            read_register(other)


# -- who writes at the same time --------------------------------------------------------------------------------------


def at_once(repo: Repository, one: Declaration, other: Declaration) -> None:
    """Two imports that do not see one another."""
    before = set(revisions(repo))
    import_register(again(repo), one)
    (name,) = set(revisions(repo)) - before
    data = put_aside(repo, name)
    import_register(again(repo), other)
    (Path(repo.url) / name).write_bytes(data)


def test_two_imports_at_once_both_count_and_are_told(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS, web=WEB))
    at_once(repo, declared(orders=ORDERS, web=WEB, one={}), declared(orders={**ORDERS, "rpo": "4h"}, web=WEB, two={}))
    found = read(repo)
    assert set(found.datasets) == {"orders", "web", "one", "two"} and found.status == "partial"
    assert len(found.conflicts) == 1 and "revisions 2 and 2" in found.conflicts[0]
    assert all(name in found.conflicts[0] for name in ("orders", "one", "two")) and "web" not in found.conflicts[0]
    with pytest.raises(Conflict, match="import the one that is to count"):
        retire(again(repo), "orders", "x")
    with pytest.raises(InvalidInput, match="missing: one"):  # whichever was last, nothing drops out
        import_register(again(repo), declared(orders=ORDERS, web=WEB, two={}))
    joined = import_register(again(repo), declared(orders=ORDERS, web=WEB, one={}, two={}))
    assert joined.revision == 3 and not joined.conflicts
    assert read(repo).status == "ok" and len(ends(repo.vault.register.read()[0])) == 1


def test_what_one_retires_and_the_other_declares_is_declared(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS, web=WEB))
    name = revisions(repo)[0]
    retire(again(repo), "orders", "gone")
    (retired,) = set(revisions(repo)) - {name}
    data = put_aside(repo, retired)
    import_register(again(repo), declared(orders=ORDERS, web={**WEB, "tier": 2}))
    (Path(repo.url) / retired).write_bytes(data)
    found = read(repo)
    assert set(found.datasets) == {"orders", "web"} and not found.retired and "orders" in found.conflicts[0]


def test_two_that_say_the_same_are_no_conflict(repo: Repository) -> None:
    import_register(repo, declared(web=WEB))
    at_once(repo, declared(orders=ORDERS, web=WEB), declared(orders=ORDERS, web=WEB))
    assert read(repo).status == "ok" and len(ends(repo.vault.register.read()[0])) == 2
    assert import_register(again(repo), declared(orders=ORDERS, web=WEB)).written  # it joins them
    assert len(ends(repo.vault.register.read()[0])) == 1


def test_whoever_imports_hears_of_another_who_did(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    import_register(repo, declared(web=WEB))
    append = repo.vault.register.append

    def late(body: bytes, after: Any) -> Any:
        before = list(after)
        again(repo).vault.register.append(
            RegisterRecord(dict(declared(web=WEB, other={}).content), ()).encode(), before
        )
        return append(body, before)

    monkeypatch.setattr(repo.vault.register, "append", late)
    result = import_register(repo, declared(web=WEB, mine={}))
    assert result.status == "partial" and "other" in result.conflicts[0]
    assert set(read(repo).datasets) == {"web", "mine", "other"}


# -- a hostile store, a taken-over client -----------------------------------------------------------------------------


def test_a_revision_that_was_seen_and_is_dropped(repo: Repository, tmp_path: Path) -> None:
    state = tmp_path / "state"
    import_register(repo, declared(orders=ORDERS))
    with again(repo, state=state) as mine:
        import_register(mine, declared(orders=ORDERS, web=WEB))
    last = revisions(repo)[-1]
    data = put_aside(repo, last)
    found = read(repo, state=state)
    assert found.status == "damaged" and found.damage[0].affected == (last,) and list(found.datasets) == ["orders"]
    assert isinstance(found.damage[0], Untrusted) and "revision 2 of the register" in str(found.damage[0])
    assert read(repo).status == "ok"  # whoever never saw it cannot know
    with again(repo, state=state) as mine:
        assert [getattr(read_register(mine), "status", "") for _ in range(2)] == ["damaged"] * 2
    with pytest.raises(Untrusted, match=r"the register stays as it is.*empty state directory"):
        import_register(again(repo, state=state), declared(orders=ORDERS))
    with again(repo, state=state) as mine:
        assert any(last in f.objects for f in snapvault.check(mine).problems)
    (Path(repo.url) / last).write_bytes(data)
    assert read(repo, state=state).status == "ok"


def test_the_newest_that_was_seen_stays_known(repo: Repository, tmp_path: Path) -> None:
    """A process that saw an older one, and ends later, does not make this client forget the newer one."""
    state = tmp_path / "state"
    import_register(repo, declared(orders=ORDERS))
    slow = again(repo, state=state)
    read_register(slow)
    with again(repo, state=state) as mine:
        import_register(mine, declared(orders=ORDERS, web=WEB))
    slow.close()
    put_aside(repo, revisions(repo)[-1])
    assert read(repo, state=state).status == "damaged"


@pytest.mark.parametrize("pinned", [False, True])
def test_a_damaged_newest_revision_is_not_replaced(repo: Repository, tmp_path: Path, pinned: bool) -> None:
    options = {"state": tmp_path / "state"} if pinned else {}
    import_register(repo, declared(orders=ORDERS))
    with again(repo, **options) as mine:
        import_register(mine, declared(orders=ORDERS, web=WEB))
    snapvault.replicate(repo.url, tmp_path / "copy")
    last = revisions(repo)[-1]
    flip(repo, last)
    found = read(repo, **options)
    assert found.status == "damaged" and list(found.datasets) == ["orders"] and last in found.damage[0].affected
    with pytest.raises(Damaged, match="not all that it declares can be seen") as caught:
        import_register(again(repo, **options), declared(orders=ORDERS))
    assert caught.value.affected == (last,) and "check --repair-from SITE" in caught.value.hint
    healed = snapvault.heal(snapvault.Site(repo.url), snapvault.Site(str(tmp_path / "copy")))
    assert healed.mended_here == (last,)
    assert set(read(repo, **options).datasets) == {"orders", "web"} and read(repo, **options).status == "ok"


@pytest.mark.parametrize("spoil", [flip, put_aside])
@pytest.mark.parametrize("which", [0, 1])
def test_an_older_revision_that_is_damaged_or_lost_stops_nobody(repo: Repository, which: int, spoil: Any) -> None:
    for row in ({}, {"owner": "a"}, {"owner": "b"}):
        import_register(repo, declared(web=row))
    name = revisions(repo)[which]
    spoil(repo, name)
    found = read(repo)
    assert found.datasets["web"].owner == "b" and found.status == "damaged"
    assert {name for p in found.damage for name in p.affected} == {name}
    assert import_register(again(repo), declared(web={"owner": "c"})).revision == 4


def test_all_revisions_damaged_is_not_nothing_declared(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS))
    flip(repo, revisions(repo)[0])
    with pytest.raises(Damaged):
        read_register(again(repo))
    with pytest.raises(Damaged):
        import_register(again(repo), declared(web=WEB))


@pytest.mark.parametrize("role", [Role.WRITER, Role.READER, Role.SITE])
def test_a_client_that_was_taken_over_declares_and_retires_nothing(repo: Repository, tmp_path: Path, role: str) -> None:
    """It puts a revision of its own making; a reader can even seal it."""
    import_register(repo, declared(orders=ORDERS))
    other = client(repo, role, tmp_path)
    other.vault.ring.__dict__["role"] = Role.MAINTAINER  # its own program does not stop it
    other.vault.ring.seeds.update(repo.vault.ring.seeds)
    body = RegisterRecord(dict(declared().content), ()).encode()
    forged = other.vault.register.append(body, repo.vault.register.read()[0])
    found = read(repo)
    assert list(found.datasets) == ["orders"] and found.revision == 1
    assert found.status == "damaged" and isinstance(found.damage[0], Untrusted)
    assert found.damage[0].affected == (forged.name,)
    assert import_register(again(repo), declared(orders=ORDERS, web=WEB)).revision == 2  # and stops nobody
    assert any(forged.name in f.objects for f in snapvault.check(again(repo)).problems)


def test_a_revision_signed_anew_by_another_key_does_not_count(repo: Repository, tmp_path: Path) -> None:
    import_register(repo, declared(orders=ORDERS, web=WEB))
    other = client(repo, Role.READER, tmp_path)
    true = repo.vault.register.read()[0][0]
    other.vault.ring.__dict__["role"] = Role.MAINTAINER
    copied = other.vault.register.append(true.body, [])
    put_aside(repo, true.name)
    with pytest.raises(Untrusted, match=copied.name):
        read_register(again(repo))


def test_an_older_revision_put_again_changes_nothing(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS))
    import_register(repo, declared(orders={**ORDERS, "rpo": "1h"}))
    first, last = revisions(repo)
    data = (Path(repo.url) / first).read_bytes()
    (Path(repo.url) / first).unlink()
    (Path(repo.url) / first).write_bytes(data)
    other = names.REGISTER + blake3(b"elsewhere").hexdigest()
    (Path(repo.url) / other).write_bytes(data)
    found = read(repo)
    assert found.revision == 2 and found.datasets == read(repo).datasets and last != first
    assert [p.affected for p in found.damage] == [(other,)]


def test_what_an_owner_of_a_newer_snapvault_wrote_is_not_passed_over(repo: Repository) -> None:
    import_register(repo, declared(orders=ORDERS))
    newer = {"schema": 1, "datasets": {"orders": ORDERS, "web": {"colour": "red"}}}
    repo.vault.register.append(RegisterRecord(newer, ()).encode(), repo.vault.register.read()[0])
    with pytest.raises(Damaged, match=r"unknown key 'colour'.*newer snapvault"):
        read_register(again(repo))
    with pytest.raises(Damaged, match="newer snapvault"):
        import_register(again(repo), declared(orders=ORDERS))


def test_a_row_that_a_revision_leaves_out_is_missed(repo: Repository, tmp_path: Path) -> None:
    """Whoever writes one with other software than this: until the row is back, or retired with a reason."""
    import_register(repo, declared(orders=ORDERS, web=WEB))
    maintainer = client(repo, "maintainer", tmp_path)

    def put(*datasets: str, retired: tuple[RetiredRow, ...] = ()) -> str:
        links, _ = again(repo).vault.register.read()
        content = {"schema": 1, "datasets": {name: {} for name in datasets}}
        body = RegisterRecord(content, retired).encode()
        return maintainer.vault.register.append(body, ends(links)).name

    left_out = put("web")
    found = read(repo)
    assert (found.status, [p.affected for p in found.damage]) == ("damaged", [(left_out,)])
    assert "revision 2 by maintainer leaves out, without a reason: orders" in str(found.damage[0])
    put("web", "more")
    assert [p.affected for p in read(repo).damage] == [(left_out,)], "the next one does not make it good"
    import_register(again(repo), declared(orders=ORDERS, web=WEB, more={}))
    assert read(repo).status == "ok"
    put("web", "more", retired=(RetiredRow("orders", "moved", "maintainer", 1),))
    assert read(repo).status == "ok"


@pytest.mark.parametrize(
    "declared",
    [{"datasets": {"a": 5}}, {"datasets": [1]}, {"datasets": {"a": {"sites": 5}}}, {"datasets": {"a": {"group": []}}},
     {"defaults": 3, "datasets": {"a": {}}}],
    ids=str,
)  # fmt: skip
def test_a_revision_that_is_no_declaration_is_named(repo: Repository, declared: dict[str, Any]) -> None:
    """Whatever made it: typed, and what stood before it is not passed off as all that is declared."""
    vault = again(repo).vault
    body = RegisterRecord({"schema": 1, **declared}, ()).encode()
    link = vault.register.append(body, ends(vault.register.read()[0]))
    with pytest.raises(Damaged) as caught:
        snapvault.read_register(again(repo))
    assert caught.value.affected == (link.name,)


def test_a_removed_maintainer_changes_nothing_more_and_what_it_said_stays(repo: Repository, tmp_path: Path) -> None:
    maintainer = client(repo, Role.MAINTAINER, tmp_path)
    import_register(maintainer, declared(orders=ORDERS))
    snapvault.remove_key(again(repo), Role.MAINTAINER)
    assert read(repo).datasets == declared(orders=ORDERS).datasets and read(repo).status == "ok"
    with pytest.raises(KeyRejected):
        import_register(maintainer, declared(orders=ORDERS, web=WEB))
    body = RegisterRecord(dict(declared().content), ()).encode()
    late = maintainer.vault.register.append(body, maintainer.vault.register.read()[0])
    found = read(repo)
    assert list(found.datasets) == ["orders"] and found.damage[0].affected == (late.name,)


def test_a_copy_reads_and_changes_nothing(repo: Repository, tmp_path: Path) -> None:
    import_register(repo, declared(orders=ORDERS))
    snapvault.replicate(repo.url, tmp_path / "copy")
    with snapvault.open(tmp_path / "copy", keys=lambda: SEED) as copy:
        assert read_register(copy) == read(repo)
        with pytest.raises(Conflict, match="change the register there"):
            import_register(copy, declared(orders=ORDERS, web=WEB))
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(RepositoryNotFound):
        snapvault.open(tmp_path / "copy", keys=lambda: SEED)


def test_the_store_sees_nothing_of_what_is_declared(repo: Repository) -> None:
    import_register(repo, declared(**{"secret-project": {"owner": "Ada Lovelace"}}))
    data = (Path(repo.url) / revisions(repo)[0]).read_bytes()
    assert b"secret-project" not in data and b"Lovelace" not in data
