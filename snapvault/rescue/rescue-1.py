#!/usr/bin/env python3
"""Gets the data out of a snapvault repository (format 1) without snapvault.

    pip install "cryptography>=50" zstandard blake3 msgpack
    python3 rescue-1.py REPOSITORY --list --key-file KEY
    python3 rescue-1.py REPOSITORY SNAPSHOT TARGET --key-file KEY

REPOSITORY  a folder with a copy of the repository: the one that holds the object "config"
SNAPSHOT    the beginning of a snapshot's id, "latest", or "DATASET@latest"
TARGET      a folder that does not exist yet, or is empty
KEY         a file with the recovery key or a client key ("-": standard input); without it a password is asked for

With the recovery key nothing is needed but "config", "snapshots/" and "packs/".  Every piece of data is verified before
it is written.  What is lost is named, the rest restored.
Exit codes: 0 all restored, 1 failed, 2 wrong usage, 3 some metadata or devices could not be set, 10 no repository,
12 wrong key, 20 data is damaged or missing.

RESCUE-1.md beside this file describes the format.
"""

import argparse
import collections
import errno
import getpass
import hmac
import json
import os
import re
import sqlite3
import stat
import struct
import sys
import time
import unicodedata

try:
    import msgpack
    import zstandard
    from blake3 import blake3
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives import hashes, hpke
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as e:  # not installed, or too old; --help works without them
    MISSING = str(e)
else:
    MISSING = ""

PACKAGES = '"cryptography>=50" zstandard blake3 msgpack'
CONFIG, KEYSET, SLOT, SESSION, SNAPSHOT, INDEX, CERTIFICATE = 1, 2, 3, 4, 5, 6, 13  # kinds of framed objects
LABELS = {KEYSET: "keyset", SESSION: "session", SNAPSHOT: "snapshot", CERTIFICATE: "certificate"}
DATA, TREE, LIST = 0, 1, 2  # types of blobs
FILE, FOLDER, SYMLINK, CHARACTER, BLOCK, FIFO, SOCKET = range(7)  # kinds of entries
FILE_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
TARGET_OF_LINK, DEVICE, LINK, XATTRS, EXTENTS, FLAGS = range(1, 7)  # keys of an entry's map of extras
OVERHEAD = 32 + 12 + 16  # bytes that an envelope adds: salt, header, tag
LIMIT = 64 << 20  # bytes; the format allows no larger record or segment
MANY = 1000  # lost pieces of one folder; a few hostile lists could name one a billion times
TRAILER = struct.Struct("<QII")


class Lost(Exception):
    """Stored data is missing, altered, or not signed by who must have signed it."""


# What a parser may run into; a record that no honest writer made raises any of them.
MALFORMED = (Lost, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error)


class Refused(Exception):
    """We cannot go on at all."""

    def __init__(self, exit_code, message):
        super().__init__(message)
        self.exit_code = exit_code


def say(text):
    """Bytes of file names that are no UTF-8, and control characters, are shown escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    print(shown, file=sys.stderr, flush=True)


# ---- records: MessagePack in a frame --------------------------------------------------------------------------------


def unpack(data):
    if len(data) > LIMIT:
        raise Lost("a record is too large")
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise Lost(f"a record is malformed ({type(e).__name__})") from None


def unframe(kind, data):
    """The body of: "SNPV", kind, version 1, two zero bytes, MessagePack, BLAKE3 of all before it."""
    if len(data) < 41 or data[:4] != b"SNPV" or blake3(data[:-32]).digest() != data[-32:]:
        raise Lost("an object is damaged")
    if data[4:8] != bytes((kind, 1, 0, 0)):
        raise Lost("an object is of another kind or of a newer format")
    return unpack(data[8:-32])


def signed_body(kind, data, public):
    """(payload, sealed part) of a signed object; ``public`` is the key, or a function that finds it in the payload."""
    payload, signatures, sealed = unframe(kind, data)
    key = Ed25519PublicKey.from_public_bytes(public(unpack(payload)) if callable(public) else public)
    message = b"snapvault/1 signed " + LABELS[kind].encode() + b"\0" + payload
    for _, scheme, signature in signatures:
        if scheme == "ed25519":
            try:
                key.verify(signature, message)
                return unpack(payload), sealed
            except InvalidSignature:
                continue
    raise Lost("an object is not signed by who must have signed it")


# ---- keys ------------------------------------------------------------------------------------------------------------


def derive(secret, purpose, context=b"", salt=None, length=32):
    info = b"snapvault/1 " + purpose.encode() + b"\0" + context
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def context_digest(*parts):
    return blake3(b"".join(len(p).to_bytes(8, "little") + p for p in parts)).digest()


def unseal(secret, purpose, context, sealed):
    """The plaintext of an envelope, decompressed."""
    if len(sealed) < OVERHEAD:
        raise Lost(f"a sealed {purpose} is cut short")
    key = derive(secret, purpose, context, salt=bytes(sealed[:32]))
    try:
        plain = AESGCM(key).decrypt(bytes(12), bytes(sealed[32:]), None)
    except InvalidTag:
        raise Lost(f"a sealed {purpose} does not verify") from None
    codec, raw_length, length = struct.unpack_from("<BxxxII", plain)
    data = plain[12 : 12 + length]
    if raw_length > LIMIT or len(data) != length or codec > 1:
        raise Lost(f"a sealed {purpose} is malformed")
    if codec == 1:
        try:
            if zstandard.frame_content_size(data) != raw_length:
                raise Lost(f"a sealed {purpose} states a wrong length")
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw_length)
        except zstandard.ZstdError:
            raise Lost(f"a sealed {purpose} does not decompress") from None
    if len(data) != raw_length:
        raise Lost(f"a sealed {purpose} has a wrong length")
    return data


class HpkeKey:
    """A private key of RFC 9180 HPKE with ML-KEM-768 and X25519, from its 32-byte seed."""

    def __init__(self, seed):
        kem = MLKEM768PrivateKey.from_seed_bytes(derive(seed, "hpke ml-kem-768", length=64))
        curve = X25519PrivateKey.from_private_bytes(derive(seed, "hpke x25519"))
        self.key = hpke.MLKEM768X25519PrivateKey(kem, curve)
        self.public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def open(self, sealed, info):
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        try:
            return suite.decrypt(sealed, self.key, info)
        except (InvalidTag, ValueError):
            raise Lost("something sealed to a key does not verify") from None


def recovery_seed(text, config_digest):
    """The seed in a printed recovery key."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    body = "".join(c for c in text.upper() if not c.isspace() and unicodedata.category(c) != "Pd")  # Pd: all dashes
    body = body.removeprefix("SNAPVAULTRECOVERY1").replace("O", "0").replace("I", "1").replace("L", "1")
    if len(body) != 109 or any(c not in digits for c in body):
        raise Refused(12, "this is no recovery key: it must have 109 letters and digits")
    number = 0
    for c in body:
        number = number << 5 | digits.index(c)
    payload = (number >> 1).to_bytes(68, "big")  # 109 * 5 = 68 * 8 + 1
    if number & 1 or blake3(payload[:64]).digest()[:4] != payload[64:]:
        raise Refused(12, "the recovery key was copied with a mistake: its checksum does not match")
    if payload[32:64] != config_digest:
        raise Refused(12, "the recovery key belongs to another repository")
    return payload[:32]


class Keys:
    """Finds the key that opens sessions: by the recovery key at once, else by way of a slot and the keyset."""

    def __init__(self, repository, key_text):
        self.repository = repository
        self.recovery = None
        self.read = {}  # epoch number -> HpkeKey
        if key_text is None:
            password = unicodedata.normalize("NFC", getpass.getpass("Password: "))
            self._by_slot("argon2id", lambda slot, _: self._password_key(password, slot[3]))
        elif len(key_text) == 32:
            self._by_slot("key-file", lambda _, context: derive(key_text, "key-file slot", context))
        else:
            self._by_text(key_text)

    def _by_text(self, key_text):
        try:
            text = key_text.decode()
            seed = bytes.fromhex(json.loads(text)["seed"]) if text.lstrip().startswith("{") else None
        except (ValueError, KeyError, TypeError):
            raise Refused(12, "the key file is not a key file of snapvault") from None
        if seed is not None:
            self._by_slot("key-file", lambda _, context: derive(seed, "key-file slot", context))
            return
        config_digest = self.repository.config_digest
        self.recovery = HpkeKey(derive(recovery_seed(text, config_digest), "recovery", config_digest))

    @staticmethod
    def _password_key(password, parameters):
        salt, memory, passes, lanes = parameters
        if not (len(salt) == 16 and 8 << 10 <= memory <= 1 << 20 and 1 <= passes <= 16 and 1 <= lanes <= 16):
            raise Lost("a key slot asks for absurd parameters")
        return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(
            password.encode()
        )

    def _by_slot(self, wrapping, wrapping_key):
        for name in self.repository.names("slots"):
            try:
                slot = unframe(SLOT, self.repository.get(name))
                config, holder, how, _, commitment, sealed = slot
                context = context_digest(config, holder)
                if how != wrapping or config != self.repository.config_digest:
                    continue
                key = wrapping_key(slot, context)
                if hmac.compare_digest(derive(key, "slot commitment", context), commitment):
                    self._by_holder(holder, HpkeKey(unseal(key, "slot", context, sealed)[:32]))
            except MALFORMED as e:
                say(f"{name} is passed over: {e}")
        if not self.read:
            raise Refused(12, "this password or key opens nothing here (or may not read); try the recovery key")

    def _by_holder(self, holder, own):
        """Keysets hold the seeds of the read keys, sealed to each holder that may read."""
        for keyset in self.repository.keysets():
            for number, public, _, sealed in keyset["epochs"]:
                info = b"snapvault/1 epoch" + context_digest(
                    self.repository.config_digest, number.to_bytes(8, "little"), public
                )
                for to, secret in sealed:
                    if to == holder and number not in self.read:
                        self.read[number] = HpkeKey(own.open(secret, info))


# ---- the repository: a folder of objects -----------------------------------------------------------------------------


class Session:
    """What opens everything that one session wrote."""

    def __init__(self, sid, holder, secrets, config_digest, domain):
        self.sid, self.holder, self.secret = sid, holder, secrets[:32]
        self.context = context_digest(config_digest, sid.encode())
        of_domain = context_digest(config_digest, domain)
        self.id_keys = [derive(secrets[32:], f"blob id {t}", of_domain) for t in (DATA, TREE, LIST)]
        self.index_key, self.index_context = derive(secrets[32:], "index", of_domain), of_domain


def first_that_opens(sessions, opening):
    """What ``opening`` gives for the first of these sessions with which it does not fail."""
    why = Lost("the header of its session is lost")
    for session in sessions:
        try:
            return opening(session)
        except Lost as e:
            why = e
    raise why


class Repository:
    """Objects are files below one folder; nothing in it is believed before it was verified."""

    def __init__(self, folder):
        self.folder = folder
        try:
            config = self.get("config")
        except OSError:
            raise Refused(10, f"{folder} holds no object 'config': it is no repository") from None
        self.config_digest = blake3(config).digest()
        try:
            body = unframe(CONFIG, config)
            self.owner = body["owner_sign"]
            if body["name"] != "snapvault" or body["format"] != 1:
                raise Lost("it is not of snapvault format 1")
        except (Lost, KeyError, TypeError) as e:
            raise Refused(20, f"the object 'config' cannot be used ({e}); take it from another copy") from None
        self.keys = self.signed_keysets = None
        self.opened = {}  # head of a session -> Session
        self.by_id = collections.defaultdict(
            list
        )  # session id -> its Sessions: a hostile writer may claim another's id
        self.tried = set()  # ids whose object in sessions/ was looked at

    def get(self, name, start=0, length=-1):
        with open(os.path.join(self.folder, name), "rb") as f:
            if start < 0:
                start += f.seek(0, os.SEEK_END)
            f.seek(max(start, 0))
            return f.read(length)

    def names(self, prefix):
        found = []
        for folder, _, files in os.walk(os.path.join(self.folder, prefix)):
            found += [os.path.relpath(os.path.join(folder, f), self.folder) for f in files if not f.startswith(".")]
        return sorted(found)

    def keysets(self):
        """Keysets that the owner signed, the newest first; read once, so that what is wrong is said once."""
        if self.signed_keysets is not None:
            return self.signed_keysets
        found = []
        for name in self.names("keyset"):
            try:
                body, _ = signed_body(KEYSET, self.get(name), self.owner)
                if body["config"] == self.config_digest:
                    found.append(body)
            except MALFORMED as e:
                say(f"{name} is ignored: {e}")
        self.signed_keysets = sorted(found, key=lambda k: -k["number"])
        return self.signed_keysets

    def certificate(self, data):
        """(holder, role, public key, domains) from a certificate that the owner signed."""
        (config, holder, role, sign, domains), _ = signed_body(CERTIFICATE, data, self.owner)
        if config != self.config_digest:
            raise Lost("a certificate belongs to another repository")
        return holder, role, sign, domains

    def open_session(self, data):
        """The Session of a header that an entitled writer signed."""
        (head, stanzas), _ = signed_body(SESSION, data, lambda payload: self.certificate(unpack(payload[0])[6])[2])
        suite, config, _, domain, sid, purpose, certificate, commitment = unpack(head)
        holder, role, _, domains = self.certificate(certificate)
        maintains = role in ("owner", "maintainer")
        if suite != 1 or config != self.config_digest or purpose not in ("writer", "gc", "undelete"):
            raise Lost("a session belongs to another repository or to a newer format")
        if not maintains and (role != "writer" or purpose == "gc" or domain not in domains):
            raise Lost(f"session {sid} was opened by a {role}, which may not")
        if head not in self.opened:
            secrets = self._open_stanza(head, stanzas)
            session = Session(sid, holder, secrets, self.config_digest, domain)
            if len(secrets) != 64 or derive(session.secret, "session commitment", session.context) != commitment:
                raise Lost(f"session {sid} does not hold the secret that it commits to")
            self.opened[head] = session
            self.by_id[sid].append(session)
        return self.opened[head]

    def _open_stanza(self, head, stanzas):
        for recipient, epoch, sealed in stanzas:
            key = self.keys.recovery if recipient == "recovery" else self.keys.read.get(epoch)
            if key is not None:
                return key.open(sealed, b"snapvault/1 session " + recipient.encode() + b"\0" + head)
        raise Lost("a session is sealed to no key that is at hand")

    def sessions_of(self, sid):
        """All Sessions of this id: from the heads of packs, from commits, and from sessions/."""
        if not re.fullmatch("(gc)?[0-9a-f]{32}", sid):
            raise Lost("a session has a malformed id")
        if sid not in self.tried:
            self.tried.add(sid)
            try:
                self.open_session(self.get("sessions/" + sid))
            except FileNotFoundError:
                pass
            except MALFORMED as e:
                say(f"sessions/{sid} is ignored: {e}")
        return self.by_id[sid]


# ---- where every blob lies: from the directories that packs carry ----------------------------------------------------


class Places:
    """A table on disk (memory must not grow with the repository), deleted when we end."""

    def __init__(self, repository):
        self.repository = repository
        self.packs = []  # (name, Session)
        self.table = sqlite3.connect("")
        self.table.execute("CREATE TABLE place (id BLOB, pack INT, start INT, sealed INT, offset INT, length INT)")
        self.cache = collections.OrderedDict()  # (pack, start) -> plaintext of a segment
        unreadable, names = {}, repository.names("packs")
        for count, name in enumerate(names, 1):
            try:
                self._add(name, *self._directory(name))
            except MALFORMED as e:
                unreadable[os.path.basename(name)] = name
                say(f"{name}: its directory cannot be read: {e}")
            if count % 1000 == 0:
                say(f"{count} of {len(names)} packs looked through")
        if unreadable:
            self._by_index(unreadable)
        self.table.execute("CREATE INDEX by_id ON place (id)")

    def _directory(self, name):
        """The Session that wrote a pack, and the four columns of its directory."""
        magic, length = struct.unpack("<8sI", self.repository.get(name, 0, 12))
        if magic != b"SVPK\x01\0\0\0" or length > 64 << 10:
            raise Lost("it is no pack")
        session = self.repository.open_session(self.repository.get(name, 12, length))
        end = self.repository.get(name, -(OVERHEAD + TRAILER.size))
        start, sealed, _ = TRAILER.unpack(unseal(session.secret, "trailer", session.context, end))
        directory = self.repository.get(name, start, sealed)
        return session, unpack(unseal(session.secret, "directory", session.context, directory))

    def _add(self, name, session, columns):
        rows, ids, lengths, _ = columns
        lengths = struct.unpack(f"<{len(lengths) // 4}I", lengths)
        number, blob, places = len(self.packs), 0, []
        for start, sealed, _, count in struct.iter_unpack("<IIII", rows):
            offset = 0
            for _ in range(count):
                places.append((ids[32 * blob : 32 * blob + 32], number, start, sealed, offset, lengths[blob]))
                offset += lengths[blob]
                blob += 1
        self.table.executemany("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?)", places)
        self.packs.append((name, session))

    def _by_index(self, unreadable):
        """Packs that are damaged at their ends: perhaps index objects still know what is in the middle."""
        for name in self.repository.names("index"):
            try:
                payload, _, sealed = unframe(INDEX, self.repository.get(name))
                config, sid, _, packs, _ = unpack(payload)
                wanted = [(i, p) for i, p in enumerate(packs) if p[0].hex() in unreadable]
                if config != self.repository.config_digest or not wanted:
                    continue
                table = first_that_opens(
                    self.repository.sessions_of(sid),
                    lambda session: unpack(unseal(session.index_key, "index", session.index_context, sealed)),  # noqa: B023
                )
                for i, (pack, _, author) in wanted:
                    for session in self.repository.sessions_of(author):
                        self._add(unreadable[pack.hex()], session, table[i])
            except MALFORMED as e:
                say(f"{name} is of no use: {e}")

    def blob(self, blob, blob_type):
        """The bytes of a blob from any place that has it whole: what was read must have this very id."""
        why = "no pack holds it"
        found = self.table.execute("SELECT pack, start, sealed, offset, length FROM place WHERE id = ?", (blob,))
        for pack, start, sealed, offset, length in found.fetchall():
            session = self.packs[pack][1]
            try:
                data = self._segment(pack, start, sealed)[offset : offset + length]
            except (Lost, OSError) as e:
                why = f"{self.packs[pack][0]}: {e}"
                continue
            if hmac.compare_digest(blake3(data, key=session.id_keys[blob_type]).digest(), blob):
                return data
            why = f"{self.packs[pack][0]}: a blob does not match its id"
        raise Lost(f"blob {blob.hex()[:16]} is lost ({why})")

    def length(self, blob):
        """Bytes of a blob, or None if no directory names it."""
        found = self.table.execute("SELECT length FROM place WHERE id = ?", (blob,)).fetchone()
        return found[0] if found and found[0] <= LIMIT else None

    def _segment(self, pack, start, sealed):
        if (pack, start) not in self.cache:
            name, session = self.packs[pack]
            data = self.repository.get(name, start, sealed)
            self.cache[pack, start] = unseal(session.secret, "segment", session.context, data)
            if len(self.cache) > 8:
                self.cache.popitem(last=False)
        self.cache.move_to_end((pack, start))
        return self.cache[pack, start]

    def ids(self, content, lose=None):
        """The blob ids of a content (bytes, or [depth, bytes]): lists of lists are read down to depth 0.

        A list that is lost raises, unless ``lose`` takes note of it and says to go on.
        """
        depth, ids = content if isinstance(content, list) else (0, content)
        if not (isinstance(ids, bytes) and isinstance(depth, int) and 0 <= depth <= 8) or len(ids) % 32:
            raise Lost("a list of blob ids is malformed")
        for i in range(0, len(ids), 32):
            if not depth:
                yield ids[i : i + 32]
                continue
            try:
                inner = self.blob(ids[i : i + 32], LIST)
                if not inner:
                    raise Lost("a list of blob ids is empty")
            except Lost as e:
                if lose is None or not lose(e):
                    raise
                continue
            yield from self.ids([depth - 1, inner], lose)


# ---- snapshots -------------------------------------------------------------------------------------------------------

Snapshot = collections.namedtuple("Snapshot", "id number time dataset host root paths note holder")


def open_snapshot(repository, name, removed):
    """A Snapshot, or None for a slot that commits nothing."""
    data = repository.get(name)
    body, sealed = signed_body(SNAPSHOT, data, lambda payload: repository.certificate(payload[3])[2])
    config, kind, sid, certificate, digest = body[0], body[1], body[2], body[3], body[10]
    if kind != "commit":
        return None
    holder, role, _, _ = repository.certificate(certificate)
    if config != repository.config_digest or os.path.basename(name) != sid or blake3(sealed).digest() != digest:
        raise Lost("it does not belong here, or its sealed part was replaced")
    if role not in ("owner", "maintainer", "writer"):
        raise Lost(f"it was committed by a {role}, which may not")
    try:
        repository.open_session(body[11])  # a copy, since sessions/ may be lost
    except MALFORMED as e:
        say(f"the session header in {name} is ignored: {e}")
    own = [s for s in repository.sessions_of(sid) if s.holder == holder]  # nobody commits another's session
    d = unpack(first_that_opens(own, lambda session: unseal(session.secret, "record", session.context, sealed)))
    note = "partial" if d["partial"] else ""
    if holder in removed:
        note += " WRITTEN BY A KEY THAT WAS REMOVED: " + removed[holder]
    if os.path.exists(os.path.join(repository.folder, "local/tombstones", sid)):
        note += " forgotten, parts of it may be gone"
    return Snapshot(sid, body[4], d["time"], d["dataset"], d["host"], d["root"], d["paths"], note.strip(), holder)


def list_snapshots(repository):
    """(the snapshots that can be opened, the oldest first; how many cannot)"""
    removed = {r[0]: r[1] for keyset in repository.keysets()[:1] for r in keyset["revocations"]}
    found, damaged = [], 0
    for name in repository.names("snapshots"):
        try:
            snapshot = open_snapshot(repository, name, removed)
            found += [snapshot] if snapshot else []
        except MALFORMED as e:
            damaged += 1
            say(f"{name} cannot be opened: {e}")
    return sorted(found, key=lambda s: (s.time, s.number, s.id)), damaged


def key_names(repository):
    """Whose keys there are and were: holder -> a name to show.  Empty if no keyset is left."""
    keysets = repository.keysets()[:1]
    named = [(r[0], r[1]) for keyset in keysets for r in keyset["revocations"]]
    named += [(h[0], h[2]) for keyset in keysets for h in keyset["holders"]]
    return {holder: f"{name} ({holder.hex()[:8]})" for holder, name in named}


def choose(snapshots, wanted, names):
    if wanted == "latest" or wanted.endswith("@latest"):
        dataset = wanted.rpartition("@")[0]
        found = [s for s in snapshots if s.note in ("", "partial") and dataset in ("", s.dataset)][-1:]
        if not dataset and len({s.dataset for s in snapshots}) > 1:
            raise Refused(2, "there are several datasets; write DATASET@latest (--list shows them)")
        # Dataset and time are what the writing key said: any writer can put itself behind another's name.
        others = [s for s in snapshots if found and s.dataset == found[0].dataset and s.holder != found[0].holder]
        if others:
            new, old = (f"{s.id[:8]}, by the key {names.get(s.holder, s.holder.hex())}" for s in (found[0], others[-1]))
            say(f"WARNING: the newest is {new}; also there is {old}: if this is wrong, name an id that --list shows")
    else:
        found = [s for s in snapshots if len(wanted) >= 4 and s.id.startswith(wanted)]
    if len(found) != 1:
        raise Refused(2, f"{wanted!r} names {len(found)} snapshots; --list shows them all")
    return found[0]


# ---- restoring -------------------------------------------------------------------------------------------------------


def owner_here(number, names, lookup):
    """The id of the owner's name on this machine, or the number where the name is unknown."""
    try:
        return lookup(names[number])
    except (KeyError, ValueError, TypeError):
        return number


def owners(node, users, groups):
    import grp
    import pwd

    return (
        owner_here(node.uid, users, lambda name: pwd.getpwnam(name).pw_uid),
        owner_here(node.gid, groups, lambda name: grp.getgrnam(name).gr_gid),
    )


class Node:
    """One entry of a folder."""

    def __init__(self, name, kind, mode, uid, gid, mtime, ctime, inode, size, content, extra=None):
        extra = extra or {}
        numbers = (kind, mode, uid, gid, mtime, size, extra.get(DEVICE, 0))
        if not isinstance(name, bytes) or not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
            raise Lost(f"an entry has a name that no file can have: {name!r}")
        if not all(type(n) is int for n in numbers) or not (0 <= kind <= SOCKET and 0 <= mode <= 0o7777 and size >= 0):
            raise Lost("an entry holds impossible values")
        self.name, self.kind, self.mode, self.uid, self.gid = name, kind, mode, uid, gid
        self.mtime, self.size, self.content = mtime, size, content
        self.target, self.device = extra.get(TARGET_OF_LINK, b""), extra.get(DEVICE, 0)
        self.link = tuple(extra[LINK]) if LINK in extra else None  # the same for all names of one file
        self.xattrs = dict(extra.get(XATTRS, {}))
        if not all(type(b) is bytes and b for b in (*self.xattrs, self.target or b"-")):
            raise Lost("an entry holds malformed attributes")
        self.extents = [(0, size)] if size else []  # where data lies; between are holes
        if EXTENTS in extra:
            self.extents = list(struct.iter_unpack("<QQ", extra[EXTENTS]))
        end = 0
        for offset, length in self.extents:
            if offset < end or offset + length > size:
                raise Lost("an entry holds an impossible map of holes")
            end = offset + length
        self.changed = bool(extra.get(FLAGS, 0) & 2)


def shown(path):
    """A path as the snapshot has it, from its root."""
    return "/" + os.fsdecode(path).lstrip("/")


class Restore:
    """Writes below one new folder.  Entries are made by name in an open parent folder and never through a link."""

    def __init__(self, places, keep_damaged):
        self.places, self.keep_damaged = places, keep_damaged
        self.lost, self.short, self.need_root, self.count, self.bytes = [], [], 0, 0, 0
        self.linked = {}  # link -> path of the first of its names
        self.root = -1

    def run(self, content, target):
        os.makedirs(target, mode=0o700, exist_ok=True)
        if os.listdir(target):
            raise Refused(2, f"{target} is not empty: name a new folder")
        if "system.posix_acl_default" in os.listxattr(target):
            os.removexattr(target, "system.posix_acl_default")  # else every new file would let in whom it names
        self.root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        todo = [(self.root, b"", None, self.nodes(content, b""))]
        while todo:  # no recursion: folders may be nested without end
            folder, path, own, nodes = todo[-1]
            step = next(nodes, None)
            if step is None:
                todo.pop()
                if own is not None:  # after everything in it was made, so that its time stays
                    self.finish(folder, b".", path, *own)
                    os.close(folder)
                continue
            node, users, groups = step
            below = path + node.name if not path else path + b"/" + node.name
            try:
                self.make(folder, node, below, users, groups)
                if node.kind == FOLDER:
                    inner = os.open(node.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                    todo.append((inner, below, step, self.nodes(node.content, below + b"/")))
            except MALFORMED as e:
                if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                    raise
                self.lose(below, e)

    def lose(self, path, why):
        self.lost.append(path)
        say(f"LOST {shown(path)}: {why}")

    def nodes(self, content, path):
        """The entries of a folder, piece by piece, with the names of their owners.  A piece that is lost is named."""
        before, gaps = b"", []

        def gap(why):
            self.lose(path or b"/", f"entries of this folder: {why}")
            gaps.append(why)
            return len(gaps) < MANY

        ids = self.places.ids(content, gap)
        while len(gaps) < MANY:
            try:
                blob = next(ids, None)
                if blob is None:
                    return
                version, users, groups, rows = unpack(self.places.blob(blob, TREE))
                if version != 1 or not isinstance(users, dict) or not isinstance(groups, dict):
                    raise Lost("a folder is malformed or of a newer format")
                nodes = [Node(*row) for row in rows]
                if not nodes:
                    raise Lost("it has an empty piece")
            except MALFORMED as e:
                gap(e)
                continue
            for node in nodes:
                if node.name <= before:
                    self.lose(path + node.name, "it and what comes after it in this folder is out of order")
                    return
                before = node.name
                yield node, users, groups

    def make(self, folder, node, path, users, groups):
        """Make one entry; a folder gets its metadata later."""
        first = self.linked.get(node.link) if node.link else None
        if first is not None:
            os.link(first, node.name, src_dir_fd=self.root, dst_dir_fd=folder, follow_symlinks=False)
            self.count += 1
            return
        if node.kind == FOLDER:
            os.mkdir(node.name, 0o700, dir_fd=folder)
        elif node.kind == FILE:
            self.file(folder, node, path, users, groups)
        elif node.kind == SYMLINK:
            os.symlink(node.target, node.name, dir_fd=folder)
        else:
            try:
                os.mknod(node.name, FILE_TYPES[node.kind] | 0o600, node.device, dir_fd=folder)
            except PermissionError:
                say(f"not made: {shown(path)}: only root can make it")
                self.need_root += 1
                return
        self.count += 1
        if node.kind not in (FOLDER, FILE):
            self.finish(folder, node.name, path, node, users, groups)
        if node.link:
            self.linked[node.link] = path
        if node.changed:
            say(f"note: {shown(path)} changed while it was backed up")

    def file(self, folder, node, path, users, groups):
        fd = os.open(node.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            try:
                self.write(fd, node)
            except MALFORMED:
                if not self.keep_damaged:
                    os.unlink(node.name, dir_fd=folder)
                raise
        finally:
            os.close(fd)
        self.finish(folder, node.name, path, node, users, groups)

    def write(self, fd, node):
        """The data of all blobs, one after another, fill the extents; between them the file has holes."""
        os.ftruncate(fd, node.size)
        extents = iter(node.extents)
        offset, left, lost = *next(extents, (0, 0)), None
        for blob in self.places.ids(node.content):
            try:
                data = memoryview(self.places.blob(blob, DATA))
            except Lost as e:
                length = self.places.length(blob)
                if not self.keep_damaged or length is None:
                    raise
                lost, data = e, memoryview(bytes(length))
            if not data:
                raise Lost("a piece of the file is empty")
            while data:
                if not left:
                    offset, left = next(extents, (0, 0))
                    if not left:
                        raise Lost("there is more data than the file is long")
                written = os.pwrite(fd, data[:left], offset)
                offset, left, data = offset + written, left - written, data[written:]
                self.bytes += written
        if left or next(extents, None):
            raise Lost("a part of the file is missing")
        if lost:
            raise Lost(f"{lost}; zeros stand in its place")

    def finish(self, folder, name, path, node, users, groups):
        """Owner, mode, attributes, time; in this order, since a change of owner clears bits of the mode."""
        uid, gid = owners(node, users, groups)
        mode = node.mode
        problems = []
        try:
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        except (OSError, OverflowError):
            mode &= ~0o6000  # setuid to somebody else than the owner would be a hole
            if os.geteuid() == 0:
                problems.append("owner")
            else:
                self.need_root += 1
        place = b"/proc/self/fd/%d/%s" % (folder, name)
        if node.kind != SYMLINK:
            try:
                os.chmod(name, mode, dir_fd=folder)
            except OSError:
                problems.append("mode")
        for key, value in node.xattrs.items():
            try:
                os.setxattr(place, key, value, follow_symlinks=False)
            except (OSError, TypeError):
                problems.append("attribute " + os.fsdecode(key))
        try:
            os.utime(name, ns=(node.mtime, node.mtime), dir_fd=folder, follow_symlinks=False)
        except (OSError, OverflowError):
            problems.append("time")
        if problems:
            self.short.append(path)
            say(f"not set: {shown(path)}: {', '.join(problems)}")


def main(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("repository", metavar="REPOSITORY")
    parser.add_argument("snapshot", metavar="SNAPSHOT", nargs="?")
    parser.add_argument("target", metavar="TARGET", nargs="?")
    parser.add_argument("--key-file", metavar="F")
    parser.add_argument("--list", action="store_true", help="show the snapshots")
    parser.add_argument("--keep-damaged", action="store_true", help="keep what is left of damaged files")
    options = parser.parse_args(arguments)
    if MISSING:
        raise Refused(1, f"packages are missing or too old ({MISSING}); this installs them: pip install {PACKAGES}")
    if not options.list and options.target is None:
        parser.error("name a snapshot and a target, or give --list")
    raise_file_limit()
    repository = Repository(options.repository)
    key_text = None
    if options.key_file:
        with sys.stdin.buffer if options.key_file == "-" else open(options.key_file, "rb") as f:
            key_text = f.read()
    repository.keys = Keys(repository, key_text)
    say("looking through the packs ...")
    places = Places(repository)
    snapshots, damaged = list_snapshots(repository)
    names = key_names(repository)
    if options.list:
        for s in snapshots:
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(s.time // 10**9))
            key = "by " + ascii(names.get(s.holder, s.holder.hex()))[1:-1]
            print(s.id, when, ascii(s.dataset)[1:-1], ascii(s.host)[1:-1], key, *map(ascii, s.paths), s.note)
        return 20 if damaged else 0
    snapshot = choose(snapshots, options.snapshot, names)
    say(f"restoring snapshot {snapshot.id} of {snapshot.dataset} {snapshot.note}")
    work = Restore(places, options.keep_damaged)
    work.run(snapshot.root, options.target)
    say(f"entries restored: {work.count}, bytes: {work.bytes}, paths lost: {len(work.lost)}")
    if work.need_root:
        say(f"owners and devices that need root to be restored: {work.need_root}")
    return 20 if work.lost else 3 if work.short else 0


def raise_file_limit():
    """Each level of nested folders takes an open file."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as e:
        say(f"rescue: {e}")
        sys.exit(e.exit_code)
    except (OSError, Lost) as e:
        say(f"rescue: {e}")
        sys.exit(20 if isinstance(e, Lost) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
