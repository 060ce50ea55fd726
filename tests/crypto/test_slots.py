"""A slot opens under one credential, for one repository and one holder."""

from dataclasses import replace

import pytest

from snapvault.crypto.recovery import RecoveryKey
from snapvault.format.slot import SlotRecord, decode_slot
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId
from snapvault.repository.credentials import ClientKey, Credential, Password, parse_key
from snapvault.repository.keyring import HolderKeys
from snapvault.repository.slots import unwrap, wrap

CONFIG = bytes(32)
KEYS = HolderKeys(bytes(range(32)), bytes(range(1, 33)))
CREDENTIALS: list[tuple[Credential, Credential]] = [
    (Password("right"), Password("wrong")),
    (ClientKey(bytes(32)), ClientKey(b"\1" * 32)),
    (RecoveryKey(bytes(32), CONFIG), RecoveryKey(b"\1" * 32, CONFIG)),
]
KINDS = pytest.mark.parametrize(("right", "wrong"), CREDENTIALS, ids=["password", "key file", "recovery key"])


def slot(credential: Credential) -> SlotRecord:
    name, data = wrap(KEYS, credential, CONFIG)
    assert name.startswith(f"slots/{KEYS.id.hex()}/")
    return decode_slot(data)


@KINDS
def test_a_slot_opens_by_its_credential_alone(right: Credential, wrong: Credential) -> None:
    record = slot(right)
    found = unwrap(record, right, CONFIG)
    assert found is not None and found.seeds == KEYS.seeds and found.id == KEYS.id
    assert unwrap(record, wrong, CONFIG) is None


@KINDS
def test_the_commitment_is_checked_before_anything_is_opened(right: Credential, wrong: Credential) -> None:
    """GCM does not commit to its key: without this, one slot could open under two passwords to two different keys."""
    record = slot(right)
    assert unwrap(record._replace(commitment=bytes(32)), right, CONFIG) is None
    # The commitment of one credential over what another sealed: whoever moved it is caught by the tag.
    moved = record._replace(sealed=slot(wrong).sealed, parameters=record.parameters)
    with pytest.raises(Damaged):
        unwrap(moved, right, CONFIG)


@KINDS
def test_a_slot_is_bound_to_repository_and_holder(right: Credential, wrong: Credential) -> None:
    record = slot(right)
    assert unwrap(record, right, b"\1" * 32) is None
    assert unwrap(record._replace(holder=HolderId(bytes(16))), right, CONFIG) is None


def test_a_client_key_opens_no_recovery_slot_of_the_same_seed() -> None:
    record = slot(RecoveryKey(bytes(32), CONFIG))
    assert unwrap(record, ClientKey(bytes(32)), CONFIG) is None


def test_weakened_password_parameters_are_refused() -> None:
    """The store may write what it likes into a slot; it must not make us hash a password cheaply or for ever."""
    record = slot(Password("right"))
    assert record.parameters is not None
    for changed in (
        {"memory": 8},
        {"memory": 1 << 30},
        {"passes": 0},
        {"passes": 1 << 20},
        {"lanes": 200},
        {"salt": b""},
    ):
        with pytest.raises(Damaged):
            unwrap(record._replace(parameters=record.parameters._replace(**changed)), Password("right"), CONFIG)


def test_secrets_do_not_show_in_a_repr() -> None:
    client = ClientKey(b"\xaa" * 32, CONFIG, KEYS.id, "web-1", 1)
    assert "aaaa" not in repr(client) and "\\xaa" not in repr(client) and "right" not in repr(Password("right"))
    assert parse_key(client.encode()) == client
    assert parse_key(replace(client, name="ünïcode\n\x1b").encode()).name == "ünïcode\n\x1b"  # type: ignore[union-attr]
