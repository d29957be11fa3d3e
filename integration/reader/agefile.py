"""age-encryption.org/v1, as far as key slots need it: X25519 identities, and a payload of one chunk. No hybrid, no plugins."""

import base64
import hmac
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from primitives import Refused, hkdf_expand, mac, need

BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_polymod(values):
    chk = 1
    for v in values:
        top, chk = chk >> 25, (chk & 0x1FFFFFF) << 5 ^ v
        for i, g in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            chk ^= g if top >> i & 1 else 0
    return chk


def read_identities(lines):
    """The X25519 identities of a file that age-keygen wrote; other kinds are passed over."""
    found = []
    for line in lines.split():
        match = re.fullmatch(r"(AGE-SECRET-KEY-)1([A-Z0-9]{58})", line)
        if not match:
            continue
        hrp, data = match[1].lower(), match[2].lower()
        need(set(data) <= set(BECH32), "identity: not Bech32")
        values = [BECH32.index(c) for c in data]
        expanded = [ord(c) >> 5 for c in hrp] + [0] + [ord(c) & 31 for c in hrp]
        need(bech32_polymod(expanded + values) == 1, "identity: checksum differs")
        number = 0
        for v in values[:-6]:
            number = number << 5 | v
        need(number & 15 == 0, "identity: padding is not zero")
        found.append((number >> 4).to_bytes(32, "big"))
    need(found, "no X25519 identity in the identity file")
    return found


def unb64(line, what):
    raw = base64.b64decode(line + b"=" * (-len(line) % 4), validate=True)
    need(base64.b64encode(raw).rstrip(b"=") == line, what)
    return raw


def age_open(data, identities, what):
    """The plaintext, None where no stanza is for one of the identities."""
    header = re.match(rb"age-encryption\.org/v1\n((?:-> [!-~]+(?: [!-~]+)*\n(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{0,63}\n)+)--- ([A-Za-z0-9+/]{43})\n", data)
    need(header, f"{what}: not an age file")
    covered, payload = data[:header.end(1) + 3], data[header.end():]
    try:
        made = unb64(header[2], f"{what}: age header")
        for share, body in re.findall(rb"-> X25519 ([A-Za-z0-9+/]{43})\n([A-Za-z0-9+/]{43})\n", header[1]):
            key = stanza_open(unb64(share, f"{what}: age stanza"), unb64(body, f"{what}: age stanza"), identities)
            if key is not None:
                break
        else:
            return None
    except ValueError:
        raise Refused(f"{what}: age header is malformed") from None
    need(hmac.compare_digest(mac(hkdf_expand(mac(bytes(32), key), b"header", 32), covered), made), f"{what}: HMAC of the age header differs")
    need(16 + 16 <= len(payload) <= 16 + 65536 + 16, f"{what}: length of the age payload")
    stream = hkdf_expand(mac(payload[:16], key), b"payload", 32)
    try:
        return ChaCha20Poly1305(stream).decrypt(bytes(11) + b"\1", payload[16:], None)
    except InvalidTag:
        raise Refused(f"{what}: the age payload does not open") from None


def stanza_open(share, body, identities):
    for scalar in identities:
        private = X25519PrivateKey.from_private_bytes(scalar)
        own = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        secret = private.exchange(X25519PublicKey.from_public_bytes(share))  # a ValueError where it is of low order
        wrap = hkdf_expand(mac(share + own, secret), b"age-encryption.org/v1/X25519", 32)
        try:
            return ChaCha20Poly1305(wrap).decrypt(bytes(12), body, None)
        except InvalidTag:
            continue
    return None
