"""Sections 9 and 10 of FORMAT.md: the config with its key slots, the recovery key, the state."""

import base64
import hashlib
import hmac
import json
import os
import re
import struct

from cryptography.exceptions import InvalidTag

from aead import xaes_256_gcm_open
from agefile import age_open
from argon2id import argon2id
from container import GEOMETRIES, KIB
from primitives import BLOCK, DIGESTS, SUITES, VERSION, Refused, crc_holds, hkdf_expand, is_zero, mac, need, note, text, u16, u32, u64

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

COMMON_KEYS = {"id": 8, "kind": str, "created": "date", "kdf": str, "salt": 32, "commitment": 32, "nonce": 24, "wrapped": 48}
SLOT_KEYS = {"passphrase": ("argon2id", b"coffer slot v1", {"time": int, "memory_kib": int, "threads": int}),
             "keyfile": ("hkdf-sha256", b"coffer kfile v1", {}),
             "age": ("hkdf-sha256", b"coffer age v1", {"recipient": str, "age_file": str})}
FEATURE_KEYS = {"incompat": int, "ro_compat": int, "compat": int}
CONFIG_KEYS = {"format": str, "version": int, "features": dict, "vault_id": 16, "commitment": 32, "key_epoch": int, "suite": str,
               "digest": str, "segment_size": int, "frame_size": int, "created": "date", "slots": list}


def typed(what, obj, keys):
    """A copy of a JSON object with exactly these keys, hexadecimal strings as bytes."""
    need(isinstance(obj, dict) and obj.keys() == keys.keys(), f"{what}: keys are missing or unknown")
    out = dict(obj)
    for key, kind in keys.items():
        value = obj[key]
        if isinstance(kind, int):
            need(isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * kind}}}", value),
                 f"{what}: {key} is not {kind} bytes in hexadecimal")
            out[key] = bytes.fromhex(value)
        elif kind == "date":
            need(isinstance(value, str) and re.fullmatch(r"\d{4}(-\d\d){2}T\d\d(:\d\d){2}(\.\d+)?(Z|[+-]\d\d:\d\d)", value),
                 f"{what}: {key} is not a time of RFC 3339")
        else:
            need(type(value) is kind and (kind is not int or 0 <= value < 1 << 32), f"{what}: {key} has a wrong type or range")
    return out


def read_config(data):
    """The config as a dict, not yet authenticated, and the bytes under its MAC and the MAC."""
    what = "config"
    need(len(data) <= 1 << 20, f"{what}: larger than 1 MiB")
    match = re.fullmatch(rb"(.*\n)#hmac-sha256 ([0-9a-f]{64})\n", data, re.DOTALL)
    need(match, f"{what}: no HMAC line")

    def unique(pairs):
        need(len(dict(pairs)) == len(pairs), f"{what}: a key is repeated")
        return dict(pairs)

    try:
        obj = json.loads(match[1].decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Refused(f"{what}: not JSON") from None
    need(isinstance(obj, dict) and obj.get("format") == "coffer-vault", f"{what}: format is not coffer-vault")
    need(obj.get("version") == VERSION, f"{what}: version is not 1")
    config = typed(what, obj, CONFIG_KEYS)
    features = typed(f"{what}: features", config["features"], FEATURE_KEYS)
    need(features["incompat"] == 0, f"{what}: unknown incompat feature")
    need(config["suite"] in [name for name, _ in SUITES.values()], f"{what}: unknown suite")
    need(config["digest"] in DIGESTS, f"{what}: unknown digest")
    need((config["segment_size"], config["frame_size"]) in GEOMETRIES.values(), f"{what}: no such geometry")
    config["slots"] = [read_slot(f"{what}: slot {i}", slot) for i, slot in enumerate(config["slots"])]
    ids = {slot["id"] for slot in config["slots"]}
    need(1 <= len(config["slots"]) <= 32 and len(ids) == len(config["slots"]), f"{what}: number or ids of the slots")
    return config, match[1], bytes.fromhex(match[2].decode())


def read_slot(what, slot):
    need(isinstance(slot, dict) and slot.get("kind") in SLOT_KEYS, f"{what}: unknown kind")
    kdf, _, more = SLOT_KEYS[slot["kind"]]
    keys = COMMON_KEYS | more | ({"label": str} if "label" in slot else {})
    slot = typed(what, slot, keys)
    need(slot["kdf"] == kdf, f"{what}: unknown kdf")
    label = slot.get("label", "")
    need(len(label.encode("utf-8", "replace")) <= 64 and label.isprintable(), f"{what}: label")
    if slot["kind"] == "age":
        need(re.fullmatch(r"age1[a-z0-9+._-]{1,8188}", slot["recipient"]), f"{what}: recipient")
        try:
            raw = base64.b64decode(slot["age_file"], validate=True)
        except ValueError:
            raise Refused(f"{what}: age_file is not base64") from None
        need(0 < len(raw) <= 65536 and base64.b64encode(raw).decode() == slot["age_file"], f"{what}: age_file")
        slot["age_file"] = raw
    return slot


def unwrap(config, kind, secret):
    """The vault master key from the first key slot of this kind that the secret opens: a passphrase, the contents of a key file, or X25519
    identities of age."""
    need(kind != "keyfile" or 32 <= len(secret) <= 65536, "length of the key file")
    for slot in config["slots"]:
        if slot["kind"] != kind:
            continue
        what = f"config: slot {slot['id'].hex()}"
        label, numbers = SLOT_KEYS[kind][1], b""
        if kind == "passphrase":
            t, m, p = slot["time"], slot["memory_kib"], slot["threads"]
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // KIB
            need(1 <= t <= 64 and 1 <= p <= 64 and 8 * p <= m <= min(16 << 20, memory), f"{what}: kdf parameters out of bounds")
            a, numbers = argon2id(secret, slot["salt"], t, m, p, 64), struct.pack("<3I", t, m, p)
        else:
            raw = secret if kind == "keyfile" else age_open(slot["age_file"], secret, what)
            if raw is None:
                continue
            need(kind == "keyfile" or len(raw) == 32, f"{what}: the age file holds no secret")
            a = hkdf_expand(mac(slot["salt"], raw), label, 64)
        if not hmac.compare_digest(a[32:], slot["commitment"]):
            continue
        ad = text(label, 16) + config["vault_id"] + slot["id"] + slot["salt"] + numbers
        try:
            return xaes_256_gcm_open(a[:32], slot["nonce"], slot["wrapped"], ad)
        except InvalidTag:
            raise Refused(f"{what}: the wrapped key does not open") from None
    raise Refused({"passphrase": "wrong passphrase", "keyfile": "wrong key file", "age": "wrong identity"}[kind])


def decode_recovery_key(words):
    letters = "".join(words.split()).upper().replace("-", "").translate(str.maketrans("ILO", "110"))
    need(len(letters) == 56 and set(letters) <= set(CROCKFORD), "recovery key: not 14 groups of four letters and digits")
    number = 0
    for letter in letters:
        number = number << 5 | CROCKFORD.index(letter)
    raw = number.to_bytes(35, "big")
    need(hashlib.sha256(b"coffer recovery v1" + raw[:32]).digest()[:3] == raw[32:], "recovery key: checksum differs")
    return raw[:32]


class State:
    """Unclean sessions as (start in ns since 1970, first link sequence, end link sequence or 0); which journal is to be replayed."""

    def __init__(self, fd, keys, recover):
        data, st, self.journal_id = b"", None, None
        if fd is not None:
            data, st = os.pread(fd, 2 * BLOCK + 1, 0), os.fstat(fd)
        slots = [data[:BLOCK], data[BLOCK:]] if len(data) == 2 * BLOCK else []
        slots = [slot for slot in slots if slot[:8] == b"COFFERS1" and crc_holds(slot, 8)]  # else torn, or never written
        for slot in slots:
            self.check(slot, keys)
        if not slots:
            note("state: lost, so one unclean session is taken to cover everything")
            self.sessions = [(-1 << 63, 0, 0)]
            return
        slot = max(slots, key=lambda slot: u64(slot, 16))
        clean = u16(slot, 14) & 1
        copied = u64(slot, 48) != st.st_ino  # Python does not know birth times
        need(clean or not copied or recover, "state: the vault was copied while not clean (--recover opens it)")
        if not clean and not is_zero(slot[64:80]):
            self.journal_id = slot[64:80]
        self.sessions = [struct.unpack_from("<qQQ", slot, 128 + 32 * k) for k in range(u32(slot, 80))]
        note(f"state: {'clean' if clean else 'not clean'}{', copied' if copied else ''}, "
             f"{len(self.sessions)} unclean sessions")

    @staticmethod
    def check(slot, keys):
        """A whole slot that is not right was not torn by a crash."""
        need(u16(slot, 12) == VERSION, "state: version is not 1")
        need(slot[24:40] == keys.vault_id, "state: belongs to another vault")
        made = mac(keys.state, text(b"coffer state v1", 16) + slot[:8] + bytes(4) + slot[12:4064])
        need(hmac.compare_digest(made, slot[4064:]), "state: HMAC differs")
        need(u32(slot, 84) == 0, "state: unknown incompat feature")
        count, flags = u32(slot, 80), u16(slot, 14)
        need(1 - flags <= count <= 64 and flags <= 1 and is_zero(slot[96:128]) and is_zero(slot[128 + 32 * count:4064]), "state: malformed")
        for k in range(count):
            _, first, end, reserved = struct.unpack_from("<qQQQ", slot, 128 + 32 * k)
            is_open = flags & 1 == 0 and k == count - 1
            need(reserved == 0 and (end == 0) == is_open and (is_open or first <= end), f"state: unclean session {k}: malformed")

    def unclean_time(self, ctime_ns):
        return any(start <= ctime_ns for start, _, _ in self.sessions)

    def unclean_sequence(self, sequence):
        return any(first <= sequence and (sequence < end or end == 0) for _, first, end in self.sessions)
