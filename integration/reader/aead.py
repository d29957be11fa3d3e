"""The two AEADs of a vault, built from what Debian 12's python3-cryptography has. Both raise InvalidTag."""

import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305


def xaes_256_gcm_open(key, nonce, sealed, associated_data):
    """C2SP XAES-256-GCM: a subkey from the first half of the nonce by CMAC, then AES-256-GCM under the second half."""
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    k1 = int.from_bytes(aes.update(bytes(16)), "big") << 1
    if k1 >> 128:
        k1 = k1 ^ 1 << 128 ^ 0x87
    subkey = b""
    for counter in (1, 2):
        block = int.from_bytes(struct.pack(">H", counter) + b"X\0" + nonce[:12], "big")
        subkey += aes.update((block ^ k1).to_bytes(16, "big"))
    return AESGCM(subkey).decrypt(nonce[12:], sealed, associated_data)


def _hchacha20(key, nonce):
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a, b, c, d):
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            word = state[z] ^ state[x]
            state[z] = (word << turn | word >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def xchacha20_poly1305_open(key, nonce, sealed, associated_data):
    """draft-irtf-cfrg-xchacha-03."""
    subkey = _hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce[16:], sealed, associated_data)
