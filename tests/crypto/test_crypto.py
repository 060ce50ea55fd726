"""Envelopes, HPKE, signatures, passwords, recovery keys: what does not verify is never opened."""

import contextlib
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.compression import RAW, ZSTD, compress, decompress
from snapvault.crypto.envelope import HEADER, MAX_RAW, OVERHEAD, padme, seal, unseal
from snapvault.crypto.hpke import PUBLIC_SIZE, HpkePrivateKey, hpke_seal
from snapvault.crypto.kdf import context_digest, derive
from snapvault.crypto.password import Argon2Parameters, password_key
from snapvault.crypto.recovery import RecoveryKey, decode_recovery_key
from snapvault.crypto.signing import SigningKey, verify
from snapvault.foundation.errors import Damaged, KeyRejected

SECRET, CONTEXT = bytes(range(32)), bytes(32)


# ---- envelope --------------------------------------------------------------------------------------------------------


def test_every_single_bit_of_an_envelope_counts() -> None:
    sealed = bytes(seal(SECRET, "segment", CONTEXT, 0, 5, b"bytes", padding=3))
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            unseal(SECRET, "segment", CONTEXT, flipped)


def test_every_truncation_and_an_append_is_refused() -> None:
    sealed = bytes(seal(SECRET, "segment", CONTEXT, 0, 5, b"bytes"))
    for data in (*(sealed[:n] for n in range(len(sealed))), sealed + b"\0", sealed * 2):
        with pytest.raises(Damaged):
            unseal(SECRET, "segment", CONTEXT, data)


@pytest.mark.parametrize(
    ("secret", "purpose", "context"),
    [(bytes(32), "segment", CONTEXT), (SECRET, "directory", CONTEXT), (SECRET, "segment", b"\1" + bytes(31))],
)
def test_another_key_purpose_or_context_opens_nothing(secret: bytes, purpose: str, context: bytes) -> None:
    sealed = seal(SECRET, "segment", CONTEXT, 0, 5, b"bytes")
    with pytest.raises(Damaged):
        unseal(secret, purpose, context, sealed)


def test_sealing_twice_gives_other_bytes_everywhere() -> None:
    """A salt that repeats would repeat key and nonce: the one thing that AES-GCM must never meet."""
    salts = {bytes(seal(SECRET, "segment", CONTEXT, 0, 5, b"bytes")[:32]) for _ in range(50)}
    assert len(salts) == 50


def test_impossible_lengths_inside_are_refused() -> None:
    for raw_length, length in ((MAX_RAW + 1, 0), (0, 6), (0xFFFFFFFF, 0xFFFFFFFF)):
        forged = HEADER.pack(0, raw_length, length) + b"bytes"
        sealed = _seal_plaintext(forged)
        with pytest.raises(Damaged):
            unseal(SECRET, "segment", CONTEXT, sealed)


def _seal_plaintext(plain: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt = bytes(32)
    return salt + AESGCM(derive(SECRET, "segment", CONTEXT, salt=salt)).encrypt(bytes(12), plain, None)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_envelopes_round_trip(data: bytes, padding: int) -> None:
    sealed = seal(SECRET, "segment", CONTEXT, 1, 77, data, padding)
    assert len(sealed) == OVERHEAD + len(data) + padding
    opened = unseal(SECRET, "segment", CONTEXT, memoryview(sealed))
    assert (opened.codec, opened.raw_length, bytes(opened.data)) == (1, 77, data)


@given(st.integers(0, 1 << 40))
def test_padme_bounds(length: int) -> None:
    padded = padme(length)
    assert padded >= max(length, 4096) and padme(padded) == padded
    assert length <= 4096 or padded - length <= length * 0.12
    assert padme(length + 1) >= padded


def test_few_lengths_are_ever_seen() -> None:
    """Of the 67 million lengths below 64 MiB the store sees 384."""
    steps, length = 0, 4096
    while length < MAX_RAW:
        length = padme(length + 1)
        steps += 1
    assert steps < 400


def test_contexts_are_unambiguous() -> None:
    assert context_digest(b"ab", b"c") != context_digest(b"a", b"bc") != context_digest(b"abc")
    assert context_digest() != context_digest(b"") != context_digest(b"", b"")


def test_purposes_keep_keys_apart() -> None:
    keys = [derive(SECRET, "segment"), derive(SECRET, "segmen", b"t"), derive(SECRET, "segment", b"\0")]
    keys += [derive(SECRET, "segment", salt=b"\1" * 32), derive(SECRET[::-1], "segment")]
    assert len(set(keys)) == len(keys)


# ---- compression -----------------------------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=30).map(lambda b: b * 50)))
def test_compression_round_trips(raw: bytes) -> None:
    codec, data = compress(raw)
    assert len(data) <= len(raw) and bytes(decompress(codec, data, len(raw))) == raw


def test_a_bomb_is_refused_before_anything_is_allocated() -> None:
    codec, bomb = compress(bytes(60 << 20))
    assert codec == ZSTD and len(bomb) < 10_000
    huge = _frame_of_size(1 << 40)
    tracemalloc.start()
    for data, raw_length in (
        (bomb, 1000),
        (bomb, (60 << 20) - 1),
        (huge, 1000),
        (huge, MAX_RAW),
        (bomb + b"x", 60 << 20),
    ):
        with pytest.raises(Damaged):
            decompress(ZSTD, data, raw_length)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # the last one is honest about its length, but for what follows it


def _frame_of_size(size: int) -> bytes:
    """A zstd frame that claims this content size: magic, descriptor (8-byte size, single segment), one empty block."""
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + size.to_bytes(8, "little") + b"\x01\0\0"


@pytest.mark.parametrize("data", [b"", b"\x28\xb5\x2f\xfd", b"not zstd", b"\x50\x2a\x4d\x18\0\0\0\0"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        decompress(ZSTD, data, 5)


def test_a_frame_without_its_size_is_refused() -> None:
    import zstandard

    data = zstandard.ZstdCompressor(write_content_size=False).compress(b"text" * 9)
    with pytest.raises(Damaged):
        decompress(ZSTD, data, 36)


def test_codecs_that_do_not_exist_yet_are_named() -> None:
    with pytest.raises(Damaged, match="codec 2"):
        decompress(2, b"", 0)
    with pytest.raises(Damaged):
        decompress(RAW, b"four", 5)


# ---- HPKE ------------------------------------------------------------------------------------------------------------


def test_hpke_opens_for_its_key_and_info_alone() -> None:
    key, other = HpkePrivateKey(bytes(32)), HpkePrivateKey(b"\1" * 32)
    assert len(key.public) == PUBLIC_SIZE
    sealed = hpke_seal(key.public, b"secret", b"info")
    assert key.open(sealed, b"info") == b"secret"
    for wrong, info in ((key, b"inf"), (key, b"info\0"), (other, b"info")):
        with pytest.raises(Damaged):
            wrong.open(sealed, info)


def test_every_byte_of_something_sealed_by_hpke_counts() -> None:
    key = HpkePrivateKey(bytes(32))
    sealed = hpke_seal(key.public, b"secret", b"info")
    for at in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(Damaged):
            key.open(bytes(flipped), b"info")
    for cut in (0, 1, 32, 1120, len(sealed) - 1):
        with pytest.raises(Damaged):
            key.open(sealed[:cut], b"info")


def test_half_of_a_hybrid_key_is_no_key() -> None:
    key, other = HpkePrivateKey(bytes(32)), HpkePrivateKey(b"\1" * 32)
    mixed = key.public[:1184] + other.public[1184:]
    with pytest.raises(Damaged):
        key.open(hpke_seal(mixed, b"secret", b""), b"")


@pytest.mark.parametrize(
    "public", [b"", bytes(1215), bytes(1217), b"\xff" * 1216, bytes(1216)], ids=lambda p: str(len(p))
)
def test_malformed_public_keys_are_refused(public: bytes) -> None:
    with pytest.raises(Damaged):
        hpke_seal(public, b"secret", b"")


# ---- signatures ------------------------------------------------------------------------------------------------------


def test_a_signature_of_one_kind_never_stands_for_another() -> None:
    key = SigningKey(bytes(32))
    signature = key.sign("index", b"payload")
    assert verify(key.public, "index", b"payload", signature)
    for label, payload in (
        ("snapshot", b"payload"),
        ("index", b"payloae"),
        ("inde", b"x\0payload"),
        ("index\0", b"payload"),
    ):
        assert not verify(key.public, label, payload, signature)
    assert not verify(SigningKey(b"\1" * 32).public, "index", b"payload", signature)


def test_every_bit_of_a_signature_counts() -> None:
    key = SigningKey(bytes(32))
    signature = key.sign("index", b"payload")
    for bit in range(512):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not verify(key.public, "index", b"payload", bytes(flipped))


@pytest.mark.parametrize("public", [b"", bytes(31), b"\xff" * 32], ids=len)
@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63)], ids=len)
def test_malformed_keys_and_signatures_are_just_wrong(public: bytes, signature: bytes) -> None:
    assert not verify(public, "index", b"payload", signature)


# ---- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("salt", "memory", "passes", "lanes"),
    [
        (15, 65536, 3, 4), (17, 65536, 3, 4), (16, 8191, 3, 4), (16, (1 << 20) + 1, 3, 4), (16, 1 << 31, 3, 4),
        (16, 65536, 0, 4), (16, 65536, 17, 4), (16, 65536, 3, 0), (16, 65536, 3, 17), (16, -1, 3, 4),
        (16, 65536, -3, 4),
    ],
)  # fmt: skip
def test_absurd_password_parameters_are_refused(salt: int, memory: int, passes: int, lanes: int) -> None:
    with pytest.raises(Damaged):
        password_key("password", Argon2Parameters(bytes(salt), memory, passes, lanes))


def test_fresh_parameters_are_rfc_9106s_second_choice_or_better() -> None:
    p, q = Argon2Parameters.fresh(), Argon2Parameters.fresh()
    assert p.memory >= 64 << 10 and p.passes >= 3 and p.lanes >= 1 and len(p.salt) == 16 and p.salt != q.salt


# ---- the recovery key ------------------------------------------------------------------------------------------------

KEY = RecoveryKey(bytes(range(32)), bytes(range(100, 132)))
TEXT = KEY.encode()
BODY_START = len("SNAPVAULT-RECOVERY-1\n")


def test_every_single_character_error_is_caught_or_forgiven() -> None:
    for at in range(BODY_START, len(TEXT)):
        for wrong in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ?-ä ":
            if wrong != TEXT[at]:
                _caught_or_forgiven(TEXT[:at] + wrong + TEXT[at + 1 :])


def test_characters_left_out_doubled_or_swapped_are_caught_or_forgiven() -> None:
    for at in range(BODY_START, len(TEXT)):
        _caught_or_forgiven(TEXT[:at] + TEXT[at + 1 :])
        _caught_or_forgiven(TEXT[:at] + TEXT[at] + TEXT[at:])
        _caught_or_forgiven(TEXT[:at] + TEXT[at : at + 2][::-1] + TEXT[at + 2 :])


def test_groups_and_lines_in_another_order_are_caught() -> None:
    lines = TEXT.splitlines()[1:]
    groups = "-".join(lines).split("-")
    rng = random.Random(8)
    for _ in range(200):
        i, j = rng.sample(range(len(groups)), 2)
        swapped = list(groups)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        _caught_or_forgiven("-".join(swapped))
    _caught_or_forgiven("\n".join(reversed(lines)))


def _caught_or_forgiven(text: str) -> None:
    """Never another key: a wrong one would be used for hours before it opens nothing."""
    with contextlib.suppress(KeyRejected):
        assert decode_recovery_key(text) == KEY


def test_how_people_type_is_forgiven() -> None:
    body = TEXT.split("\n", 1)[1]
    for text in (
        TEXT.lower(), body, body.replace("-", ""), body.replace("-", " "), body.replace("\n", "\r\n\t"),
        f"\n  {TEXT}  \n",
        body.replace("0", "O").replace("1", "l"), body.replace("0", "o").replace("1", "I"), "-".join(body),
    ):  # fmt: skip
        assert decode_recovery_key(text) == KEY


@pytest.mark.parametrize("text", ["", "SNAPVAULT-RECOVERY-1", "0" * 109, "0" * 108 + "1", "é" * 109, "0" * 10_000])
def test_what_is_no_recovery_key_is_refused(text: str) -> None:
    with pytest.raises(KeyRejected):
        decode_recovery_key(text)


def test_a_last_bit_that_says_nothing_must_be_zero() -> None:
    """545 bits are written and 544 are used: whoever sees the other bit set has not what was printed."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    with pytest.raises(KeyRejected):
        decode_recovery_key(TEXT[:-1] + digits[digits.index(TEXT[-1]) ^ 1])


@settings(max_examples=300)
@given(st.text(max_size=150))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    with pytest.raises(KeyRejected):
        decode_recovery_key(text)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_recovery_keys_round_trip(seed: bytes, digest: bytes) -> None:
    assert decode_recovery_key(RecoveryKey(seed, digest).encode()) == RecoveryKey(seed, digest)
