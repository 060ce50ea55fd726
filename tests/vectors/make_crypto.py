"""crypto.json: derivations, envelopes, HPKE, signatures, keys as people carry them."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

from common import CONFIG_DIGEST, DOMAIN, SID, plain, secret

from snapvault.compression import compress
from snapvault.crypto.envelope import padme, seal
from snapvault.crypto.hpke import HpkePrivateKey, hpke_seal
from snapvault.crypto.kdf import context_digest, derive
from snapvault.crypto.password import Argon2Parameters, password_key
from snapvault.crypto.recovery import RecoveryKey
from snapvault.crypto.signing import SigningKey
from snapvault.format.session import READ, RECOVERY
from snapvault.format.snapshot import merkle
from snapvault.foundation.ids import HolderId
from snapvault.repository.credentials import ClientKey
from snapvault.repository.keyring import DomainKeys, HolderKeys, domain_info, epoch_info, recovery_key_pair
from snapvault.repository.packs import session_context
from snapvault.repository.sessions import secret_commitment, stanza_info
from snapvault.repository.trust import LABELS


def crypto(old: dict[str, Any]) -> dict[str, Any]:
    return {
        "derive": list(derivations()),
        "context digest": [
            {"parts": plain(parts), "digest": context_digest(*parts).hex()}
            for parts in ((), (b"",), (b"ab", b"c"), (b"a", b"bc"), (CONFIG_DIGEST, SID.encode()))
        ],
        "envelope": list(envelopes()),
        "padme": [[n, 4096, padme(n)] for n in (0, 4096, 4097, 5000, 65_537, 1_000_000, 12_345_678, (1 << 26) - 1)],
        "hpke": list(hpke_vectors(old.get("hpke", []))),
        "signature": list(signatures()),
        "password": list(passwords()),
        "recovery": list(recovery_keys()),
        "client key": client_key(),
        "session": session_secrets(),
        "domain": domain_secrets(),
        "holder": holder(),
        "merkle": list(merkles()),
    }


def derivations() -> Iterator[dict[str, Any]]:
    of_session, of_domain = context_digest(CONFIG_DIGEST, SID.encode()), context_digest(CONFIG_DIGEST, DOMAIN)
    of_slot = context_digest(CONFIG_DIGEST, secret("holder", 16))
    for purpose, context, length in (
        ("segment", of_session, 32), ("directory", of_session, 32), ("trailer", of_session, 32),
        ("record", of_session, 32), ("session commitment", of_session, 32), ("index", of_domain, 32),
        ("blob id 0", of_domain, 32), ("blob id 1", of_domain, 32), ("blob id 2", of_domain, 32),
        ("chunker", of_domain, 32), ("slot", of_slot, 32), ("slot commitment", of_slot, 32),
        ("key-file slot", of_slot, 32), ("recovery slot", of_slot, 32), ("recovery", CONFIG_DIGEST, 32),
        ("hpke ml-kem-768", b"", 64), ("hpke x25519", b"", 32),
    ):  # fmt: skip
        for salt in (b"", secret("salt")):
            yield {
                "secret": secret("secret").hex(), "purpose": purpose, "context": context.hex(), "salt": salt.hex(),
                "length": length,
                "derived": derive(secret("secret"), purpose, context, salt=salt, length=length).hex(),
            }  # fmt: skip


def envelopes() -> Iterator[dict[str, Any]]:
    context = context_digest(CONFIG_DIGEST, SID.encode())
    text = b"the same words again, " * 20
    for purpose, raw, padding in (("segment", b"", 0), ("segment", text, 0), ("record", text, 100), ("slot", b"x", 7)):
        codec, data = compress(raw)
        with mock.patch("os.urandom", lambda n: secret("salt", n)):
            sealed = seal(secret("secret"), purpose, context, codec, len(raw), data, padding)
        yield {
            "secret": secret("secret").hex(), "purpose": purpose, "context": context.hex(), "codec": codec,
            "raw": raw.hex(), "data": bytes(data).hex(), "padding": padding, "salt": secret("salt").hex(),
            "sealed": sealed.hex(),
        }  # fmt: skip


def hpke_vectors(old: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Twelve infos of the format's four kinds would be as good as these."""
    infos = {
        "epoch": epoch_info(CONFIG_DIGEST, 1, secret("read public", 1216)),
        "domain": domain_info(CONFIG_DIGEST, DOMAIN),
        "session read": stanza_info(READ, b"the head's exact bytes"),
        "session recovery": stanza_info(RECOVERY, b"the head's exact bytes"),
        "empty": b"",
    }
    for i, (what, info) in enumerate(infos.items()):
        seed = secret(f"hpke seed {i}")
        key, plaintext = HpkePrivateKey(seed), secret("plaintext", 64 if "session" in what else 32)
        kept = [v["sealed"] for v in old if (v["seed"], v["info"]) == (seed.hex(), info.hex())]
        sealed = bytes.fromhex(kept[0]) if kept else hpke_seal(key.public, plaintext, info)
        assert key.open(sealed, info) == plaintext
        yield {
            "what": what, "seed": seed.hex(), "ml-kem seed": derive(seed, "hpke ml-kem-768", length=64).hex(),
            "x25519 private": derive(seed, "hpke x25519").hex(), "public": key.public.hex(), "info": info.hex(),
            "plaintext": plaintext.hex(), "sealed": sealed.hex(),
        }  # fmt: skip


def signatures() -> Iterator[dict[str, str]]:
    key = SigningKey(secret("sign seed"))
    for label in LABELS.values():
        payload = b"payload of a " + label.encode()
        yield {
            "seed": secret("sign seed").hex(), "public": key.public.hex(), "label": label, "payload": payload.hex(),
            "message": (b"snapvault/1 signed " + label.encode() + b"\0" + payload).hex(),
            "signature": key.sign(label, payload).hex(),
        }  # fmt: skip


def passwords() -> Iterator[dict[str, Any]]:
    salt = secret("salt", 16)
    for password, memory, passes, lanes in (
        ("correct horse", 8 << 10, 1, 1), ("correct horse", 64 << 10, 3, 4),
        ("\u00c5ngstr\u00f6m", 8 << 10, 1, 1), ("A\u030angstro\u0308m", 8 << 10, 1, 1),
    ):  # fmt: skip
        key = password_key(password, Argon2Parameters(salt, memory, passes, lanes))
        yield {
            "password": password, "utf-8 as typed": password.encode().hex(), "salt": salt.hex(), "memory": memory,
            "passes": passes, "lanes": lanes, "key": key.hex(),
        }  # fmt: skip


def recovery_keys() -> Iterator[dict[str, str]]:
    for seed, digest in (
        (secret("recovery seed"), CONFIG_DIGEST),
        (bytes(32), bytes(32)),
        (b"\xff" * 32, b"\xff" * 32),
    ):
        yield {
            "seed": seed.hex(), "config digest": digest.hex(), "text": RecoveryKey(seed, digest).encode(),
            "hpke public": recovery_key_pair(seed, digest).public.hex(),
        }  # fmt: skip


def client_key() -> dict[str, Any]:
    key = ClientKey(secret("client seed"), CONFIG_DIGEST, HolderId(secret("holder", 16)), "web-1", 3)
    return {**plain(key), "text": key.encode().decode()}


def session_secrets() -> dict[str, str]:
    context = session_context(CONFIG_DIGEST, SID)
    return {
        "config digest": CONFIG_DIGEST.hex(), "sid": SID, "context": context.hex(), "secret": secret("session").hex(),
        "commitment": secret_commitment(secret("session"), context).hex(),
    }  # fmt: skip


def domain_secrets() -> dict[str, Any]:
    keys = DomainKeys(DOMAIN, secret("domain secret"), CONFIG_DIGEST)
    data = b"a chunk of a file"
    return {
        "config digest": CONFIG_DIGEST.hex(), "domain": DOMAIN.hex(), "secret": secret("domain secret").hex(),
        "data": data.hex(), "ids": [keys.blob_id(t, data).hex() for t in (0, 1, 2)],
        "chunk key": keys.chunk_key.hex(), "index key": keys.index_key.hex(),
    }  # fmt: skip


def holder() -> dict[str, str]:
    keys = HolderKeys(secret("holder hpke"), secret("holder sign"))
    return {
        "hpke seed": secret("holder hpke").hex(), "sign seed": secret("holder sign").hex(),
        "hpke public": keys.hpke.public.hex(), "sign public": keys.signer.public.hex(), "id": keys.id.hex(),
    }  # fmt: skip


def merkles() -> Iterator[dict[str, Any]]:
    objects = [(f"packs/{i:02x}/{secret(str(i)).hex()}", 1000 * i) for i in range(5)]
    for n in range(6):
        yield {
            "objects": objects[:n],
            "count": n,
            "size": merkle(objects[:n]).size,
            "root": merkle(objects[:n]).root.hex(),
        }
