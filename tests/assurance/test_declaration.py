"""``snapvault.toml``: what it comes to, and what is refused with the place where it stands."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from snapvault import Retention
from snapvault.assurance.dataset import Dataset, DrillRule, Probe
from snapvault.assurance.declaration import Refused, declare, read_declaration
from snapvault.foundation.errors import InvalidInput

WHOLE = """
schema = 1

[defaults]
rpo = "24h"
sites = ["second"]
drill = {every = "30d"}

[groups.office]
owner = "Ada"
rpo = "4h"
host = "web-1"

[datasets.orders]
group = "office"
source = "/srv/orders"
tier = 1
rto = "90m"
sites = ["second", "third", "second"]
retention = {daily = 7, within = "2d", tags = ["kept"], minimum = 3}
drill = {every = "1w", level = "sample"}
probe = {kind = "sqlite", timeout = "30s", path = "orders.db", rows = {orders = 1}}

[datasets."mail.archive"]
source = ["/srv/mail", "s3://bucket/mail", "file:///srv/more"]
probe = {kind = "tar"}

[datasets.dump]
group = "office"
owner = "Bob"
"""


def test_what_a_file_comes_to(tmp_path: Path) -> None:
    (tmp_path / "snapvault.toml").write_text(WHOLE)
    found = read_declaration(tmp_path / "snapvault.toml").datasets
    assert list(found) == ["orders", "mail.archive", "dump"]
    assert found["orders"] == Dataset(
        "orders", ("/srv/orders",), "Ada", "1", "office", timedelta(hours=4), timedelta(minutes=90),
        ("second", "third"),
        Retention(daily=7, within=timedelta(days=2), tags=("kept",), minimum=3), DrillRule(timedelta(days=7), "sample"),
        Probe("sqlite", {"path": "orders.db", "rows": {"orders": 1}}, timedelta(seconds=30)), "web-1",
    )  # fmt: skip
    mail = found["mail.archive"]
    assert mail.sources == ("/srv/mail", "s3://bucket/mail", "file:///srv/more") and mail.rpo == timedelta(hours=24)
    assert mail.drill == DrillRule(timedelta(days=30), "alive")  # as far as its probe goes
    dump = found["dump"]
    assert (dump.owner, dump.rpo, dump.sources, dump.host) == ("Bob", timedelta(hours=4), (), "web-1")
    assert dump.drill == DrillRule(timedelta(days=30), "full") and dump.probe is None


def test_the_same_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(WHOLE)
    one = read_declaration(tmp_path / "a.toml")
    (tmp_path / "a.json").write_text(json.dumps(one.content))
    assert read_declaration(tmp_path / "a.json") == one
    (tmp_path / "twice.json").write_text('{"schema": 1, "datasets": {"a": {}, "a": {}}}')
    with pytest.raises(InvalidInput, match="a key stands twice: a"):
        read_declaration(tmp_path / "twice.json")


@pytest.mark.parametrize(
    ("row", "place", "message"),
    [
        ({"rpo": "0h"}, ".rpo", "no time at all"),
        ({"rpo": "30s"}, ".rpo", "nothing can meet; a minute is the least"),
        ({"rto": "-1h"}, ".rto", "no span of time"),
        ({"rto": 4}, ".rto", "must be text, not a whole number"),
        ({"colour": "red"}, "", "unknown key 'colour'; keys are host, owner, "),
        ({"group": "nobody"}, ".group", "no group 'nobody'; there are office"),
        ({"sites": ["a b"]}, ".sites", "no name for a site"),
        ({"sites": "second"}, ".sites", "must be a list, not text"),
        ({"source": "srv/orders"}, ".source", "neither a URL nor an absolute path"),
        ({"source": ["/a", ""]}, ".source", "neither a URL nor an absolute path"),
        ({"host": "a\nb"}, ".host", "no name of a host"),
        ({"retention": {}}, ".retention", "no retention rule says what to keep"),
        ({"retention": {"daily": -1}}, ".retention", "less than nothing"),
        ({"retention": {"within": "6m"}}, ".retention", "minutes"),
        ({"drill": {"level": "full"}}, ".drill", "the key 'every' is missing"),
        ({"drill": {"every": "1d", "level": "undead"}}, ".drill", "none of structure, sample, full, alive"),
        ({"drill": {"every": "1d", "depth": 3}}, ".drill", "unknown key 'depth'"),
        ({"drill": {"every": "1d", "level": "alive"}}, "", "no probe is declared"),
        ({"probe": {"timeout": "5m"}}, ".probe", "'kind' must say which probe"),
        ({"probe": {"kind": "tar", "timeout": 5}}, ".probe", "timeout must be text"),
        ({"probe": {"kind": "tar", "timeout": "0s"}}, ".probe", "no time at all"),
        ({"probe": {"kind": "tar", "share": 0.5}}, ".probe.share", "neither a text nor a whole number"),
        ({"probe": {"kind": "oracle"}}, ".probe", "no probe of the kind 'oracle'; kinds are command, "),
        ({"probe": {"kind": "sqlite", "database": "a.db"}}, ".probe", "unknown field `database`"),
        ({"probe": {"kind": "sqlite", "rows": {"orders": "many"}}}, ".probe", "Expected `int`"),
        ({"probe": {"kind": "command"}}, ".probe", "`argv`"),
        ({"owner": "a\0b"}, ".owner", "what no text may hold"),
        ({"owner": "\ud800"}, ".owner", "what no text may hold"),
        ({"tier": 1 << 64}, ".tier", "too large"),
        (3, "", "must be a table, not a whole number"),
    ],
    ids=str,
)
def test_what_is_refused_names_its_place(row: Any, place: str, message: str) -> None:
    content = {"schema": 1, "groups": {"office": {}}, "datasets": {"orders": row, "fine": {}}}
    with pytest.raises(Refused) as caught:
        declare(content, "the file")
    (fault,) = caught.value.faults
    assert fault.path == f"datasets.orders{place}" and message in fault.message
    assert fault.path in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ({}, "the file", "the key 'schema' is missing: write schema = 1"),
        ({"schema": 2}, "schema", "reads 1"),
        (
            {"schema": 1, "dataset": {}},
            "the file",
            "unknown key 'dataset'; keys are schema, defaults, ",
        ),
        ({"schema": 1, "defaults": {"source": "/a"}}, "defaults", "unknown key 'source'"),
        ({"schema": 1, "defaults": {"rpo": "soon"}, "datasets": {"a": {}, "b": {}}}, "defaults.rpo", "'soon'"),
        ({"schema": 1, "groups": {"g": {"group": "h"}}}, "groups.g", "unknown key 'group'"),
        ({"schema": 1, "groups": {"g\0": {}}}, "groups", "what no text may hold"),
        ({"schema": 1, "datasets": {"a b": {}}}, "datasets.a b", "no dataset name; use letters, "),
        ({"schema": 1, "datasets": {"a": {}, "A": {}}}, "datasets.A", "only its case tells it from a"),
        ([], "the file", "must be a table, not a list"),
    ],
    ids=str,
)
def test_what_is_refused_of_the_whole(content: Any, place: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        declare(content, "the file")
    (fault,) = caught.value.faults
    assert fault.path == place and message in fault.message


def test_all_faults_are_named_at_once() -> None:
    rows = {f"d{n}": {"rpo": "never"} for n in range(9)}
    with pytest.raises(Refused) as caught:
        declare({"schema": 1, "datasets": rows}, "inventory")
    assert len(caught.value.faults) == 9
    assert caught.value.message.startswith("inventory has 9 faults, so nothing of it counts: datasets.d0.rpo")
    assert caught.value.message.endswith("and 4 more")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"schema = 1\n[datasets.a]\n[datasets.a]\n", "line 3"),
        (b"schema = \n", "line 1"),
        ("[datasets.\u00e4]".encode("cp1252"), "no UTF-8"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        read_declaration(tmp_path / "x.toml")
    with pytest.raises(InvalidInput, match="No such file"):
        read_declaration(tmp_path / "missing.toml")


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_declaration(tmp_path / "deep.json")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_declaration(tmp_path / "deep.toml")
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(Refused, match="nested"):
        declare({"schema": 1, "datasets": {"a": {"probe": {"kind": "x", "deep": deep}}}}, "the file")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfschema = 1\n")
    assert read_declaration(tmp_path / "x.toml").datasets == {}
