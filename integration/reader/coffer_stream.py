#!/usr/bin/env python3
"""Opens a sealed stream: sections 5 and 15 of FORMAT.md, from standard input to standard output.

Segments are written as they prove good. Exit code 1 says that the stream was refused, and why; what was written by then is good."""

import argparse
import hmac
import sys

from cryptography.exceptions import InvalidTag

from agefile import read_identities
from container import GEOMETRIES
from primitives import DIGESTS, SUITES, VERSION, Refused, crc_holds, digest, hkdf_expand, is_zero, mac, need, text, u16, u32, u64
from vaultfiles import unwrap

HEAD, SLOT, MAC = 88, 160, 32
KINDS = {1: "passphrase", 2: "keyfile", 3: "age"}
FRAME, NONCE, TAG = 32, 24, 16
OVERHEAD = FRAME + NONCE + TAG
DIGEST_PAYLOAD = 40
DATA, DIGEST = 1, 3


def read_slots(raw, count):
    """The key slots as unwrap takes those of a config."""
    slots = []
    for i in range(count):
        what = f"key slot {i}"
        need(len(raw) >= SLOT, f"{what}: cut")
        kind, p, age_file, t, m = raw[0], raw[1], u32(raw, 4), u32(raw, 152), u32(raw, 156)
        need(kind in KINDS and is_zero(raw[2:4]), f"{what}: kind or reserved bytes")
        need(0 < age_file <= 65536 if kind == 3 else age_file == 0, f"{what}: length of the age file")
        if kind == 1:
            need(1 <= t <= 16 and 1 <= p <= 64 and 8 * p <= m <= 4 << 20, f"{what}: kdf parameters out of bounds")
        else:
            need((p, t, m) == (0, 0, 0), f"{what}: kdf parameters of no passphrase")
        need(len(raw) >= SLOT + age_file, f"{what}: cut")
        slots.append({"kind": KINDS[kind], "id": raw[8:16], "salt": raw[16:48], "commitment": raw[48:80],
                      "nonce": raw[80:104], "wrapped": raw[104:152],
                      "time": t, "memory_kib": m, "threads": p, "age_file": raw[SLOT:SLOT + age_file]})
        raw = raw[SLOT + age_file:]
    need(not raw, "bytes behind the key slots")
    need(sum(slot["kind"] == "passphrase" for slot in slots) <= 1, "two passphrases")
    return slots


class Stream:
    def __init__(self, source, kind, secret):
        self.source = source
        head = source.read(HEAD)
        need(head[:8] == b"COFFERW1" and len(head) == HEAD, "no sealed stream")
        need(u16(head, 12) == VERSION, "header: version is not 1")
        length = u32(head, 24)
        need(HEAD + SLOT + MAC <= length <= HEAD + 32 * (SLOT + 65536) + MAC, "header: length")
        head += source.read(length - HEAD)
        need(len(head) == length and crc_holds(head, 8), "header: cut, or CRC differs")
        need(u32(head, 28) == 0, "header: unknown feature")
        need(head[14] in SUITES and head[15] in DIGESTS.values(), "header: unknown suite or digest")
        self.suite, self.digest = head[14], head[15]
        self.segment, self.frame = u32(head, 16), u32(head, 20)
        need((self.segment, self.frame) in GEOMETRIES.values(), "header: no such geometry")
        self.frames = self.segment // self.frame
        self.id = head[32:48]
        need(1 <= u16(head, 80) <= 32 and is_zero(head[82:88]), "header: number of key slots, or reserved bytes")
        slots = read_slots(head[HEAD:-MAC], u16(head, 80))
        key = unwrap({"vault_id": self.id, "slots": slots}, kind, secret)
        m = hkdf_expand(mac(self.id, key), b"coffer v1 stream" + head[14:24] + bytes(4), 96)
        self.k_enc = m[:32]
        need(hmac.compare_digest(m[64:], head[48:80]), "header: key commitment differs")
        need(hmac.compare_digest(mac(m[32:64], b"coffer stream v1" + head[:8] + bytes(4) + head[12:-MAC]), head[-MAC:]), "header: MAC differs")

    def open_frame(self, wire, segment, index, type_):
        """Plaintext, flags, leaf and the rest of the wire."""
        need(len(wire) >= FRAME, "frame: cut")
        header, length = wire[:FRAME], u32(wire, 20)
        need(header[:4] == b"CFR1" and header[4] == VERSION and header[5] == type_ and header[6] <= 1 and header[7] == self.suite and
             u64(header, 8) == segment and u32(header, 16) == index and is_zero(header[28:]), "frame: header out of place")
        need(length == DIGEST_PAYLOAD if type_ == DIGEST else 0 < length <= self.frame, "frame: length")
        need(len(wire) >= OVERHEAD + length, "frame: cut")
        sealed, rest = wire[FRAME + NONCE:OVERHEAD + length], wire[OVERHEAD + length:]
        ad = text(b"coffer frame v1", 16) + self.id + bytes(16) + header
        try:
            plain = SUITES[self.suite][1](self.k_enc, wire[FRAME:FRAME + NONCE], sealed, ad)
        except InvalidTag:
            raise Refused("frame: does not open") from None
        leaf = digest(self.digest, header + sealed[:length])
        return plain, header[6], leaf and leaf[:8], rest

    def open_segment(self, wire, segment):
        """Plaintext, and whether it is the last one."""
        plain, leaves, all_flags = b"", [], set()
        while len(wire) > 5 and wire[5] != DIGEST:
            need(len(leaves) < self.frames and len(plain) % self.frame == 0, "frame: one too many, or behind a short one")
            part, flags, leaf, wire = self.open_frame(wire, segment, len(leaves), DATA)
            plain += part
            leaves.append(leaf)
            all_flags.add(flags)
        payload, flags, _, wire = self.open_frame(wire, segment, self.frames, DIGEST)
        all_flags.add(flags)
        need(not wire and len(all_flags) == 1, "bytes behind the segment, or flags that differ")
        need(u64(payload, 32) == len(plain), "plain length of the segment differs")
        if None not in leaves:  # else BLAKE3, which this reader has not
            leaves += [bytes(8)] * (self.frames - len(leaves))
            made = digest(self.digest, segment.to_bytes(8, "little") + bytes(16) + b"".join(leaves))
            need(made in (None, payload[:32]), "digest of the segment differs")
        return plain, flags == 1

    def segments(self):
        size, last, segment = self.segment + (self.frames + 1) * OVERHEAD + DIGEST_PAYLOAD, False, 0
        while wire := self.source.read(size):
            need(not last, "bytes behind the last segment")
            plain, last = self.open_segment(wire, segment)
            need(len(plain) == self.segment or last, "a short segment that is not the last")
            need(plain or segment == 0, "an empty last segment")
            yield plain
            segment += 1
        need(last, "the last segment is missing")


def main():
    parser = argparse.ArgumentParser(description="Open a sealed stream.")
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--passphrase-file", help="one newline at its end is not part of the passphrase")
    secret.add_argument("--keyfile")
    secret.add_argument("--identity", help="X25519 identities of age")
    args = parser.parse_args()
    try:
        with open(args.passphrase_file or args.keyfile or args.identity, "rb") as f:
            data = f.read((1 << 20) + 1)
        if args.passphrase_file:
            stream = Stream(sys.stdin.buffer, "passphrase", data.removesuffix(b"\n"))
        elif args.keyfile:
            stream = Stream(sys.stdin.buffer, "keyfile", data)
        else:
            stream = Stream(sys.stdin.buffer, "age", read_identities(data.decode("ascii", "replace")))
        for plain in stream.segments():
            sys.stdout.buffer.write(plain)
    except (Refused, OSError) as err:
        sys.stdout.flush()
        print("refused:", err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
