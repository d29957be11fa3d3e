"""What every part of the reader uses: sections 1 and 3 of FORMAT.md, and how things are refused."""

import base64
import binascii
import hashlib
import hmac
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.cmac import CMAC

from aead import xaes_256_gcm_open, xchacha20_poly1305_open

BLOCK = 4096
VERSION = 1
SUITES = {1: ("xaes-256-gcm", xaes_256_gcm_open), 2: ("xchacha20-poly1305", xchacha20_poly1305_open)}
BLAKE3, SHA256, NO_DIGEST, CRC32C = 1, 2, 3, 4
DIGESTS = {"blake3": BLAKE3, "sha256": SHA256, "none": NO_DIGEST, "crc32c": CRC32C}


class Refused(Exception):
    """Something that a reader MUST reject."""


def need(holds, what):
    if not holds:
        raise Refused(what)


def note(text):
    print("note:", text, file=sys.stderr)


def u16(b, at):
    return int.from_bytes(b[at:at + 2], "little")


def u32(b, at):
    return int.from_bytes(b[at:at + 4], "little")


def u64(b, at):
    return int.from_bytes(b[at:at + 8], "little")


def i64(b, at):
    return int.from_bytes(b[at:at + 8], "little", signed=True)


def text(label, size):
    return label.ljust(size, b"\0")


def is_zero(b):
    return not any(b)


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def hkdf_expand(prk, info, length):
    out = part = b""
    for i in range(1, -(-length // 32) + 1):
        part = mac(prk, part + info + bytes([i]))
        out += part
    return out[:length]


def _crc_table():
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 * (n & 1)
        yield n


CRC_TABLE = tuple(_crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def crc_holds(block, at):
    return u32(block, at) == crc32c(block[:at] + bytes(4) + block[at + 4:])


def digest(algorithm, data):
    """32 bytes, or None where this reader has no such function."""
    if algorithm == SHA256:
        return hashlib.sha256(data).digest()
    if algorithm == CRC32C:
        return struct.pack("<I28x", crc32c(data))
    return bytes(32) if algorithm == NO_DIGEST else None


def base64url_decode(sealed):
    """None where it is not canonical."""
    try:
        raw = base64.urlsafe_b64decode(sealed + b"=" * (-len(sealed) % 4))
    except binascii.Error:
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=") == sealed else None


def escape(name):
    """Plain names are bytes: printable ASCII as it is, all else and the backslash as \\xHH."""
    return "".join(chr(c) if 0x20 <= c < 0x7F and c != 0x5C else f"\\x{c:02x}" for c in name)


class Keys:
    def __init__(self, master, vault_id):
        self.vault_id = vault_id
        prk = mac(vault_id, master)
        self.content, names, self.config, self.state, self.journal, xattr, self.commitment = (
            hkdf_expand(prk, b"coffer v1 " + label, length) for label, length in (
                (b"content", 32), (b"names", 64), (b"config", 32), (b"state", 32), (b"journal", 32), (b"xattr", 64), (b"commitment", 32)))
        self.names, self.xattr = names, xattr


def cmac(key, data):
    c = CMAC(algorithms.AES(key))
    c.update(data)
    return c.finalize()


def doubled(block):
    n = int.from_bytes(block, "big") << 1
    return (n ^ (1 << 128 | 0x87 if n >> 128 else 0)).to_bytes(16, "big")


def open_siv(key, sealed, associated_data):
    """AES-SIV with one string of associated data. None where it does not open."""
    if len(sealed) == 16:  # an empty plaintext, which AESSIV refuses: S2V of RFC 5297 by hand
        d = int.from_bytes(doubled(cmac(key[:32], bytes(16))), "big") ^ int.from_bytes(cmac(key[:32], associated_data), "big")
        t = int.from_bytes(doubled(d.to_bytes(16, "big")), "big") ^ 0x80 << 120
        return b"" if hmac.compare_digest(cmac(key[:32], t.to_bytes(16, "big")), sealed) else None
    try:
        return AESSIV(key).decrypt(sealed, [associated_data])
    except (InvalidTag, ValueError):  # ValueError: shorter than a SIV
        return None
