"""Sections 4 to 7 of FORMAT.md: geometry, frames, records, pins, headers."""

import hashlib
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag

from journal import HostFile
from primitives import (BLAKE3, BLOCK, DIGESTS, SUITES, VERSION, Refused, crc_holds, digest, hkdf_expand, is_zero, mac, text,
                        u16, u32, u64)

KIB = 1024
GEOMETRIES = {1: (16 * KIB, 4 * KIB), 2: (32 * KIB, 8 * KIB), 3: (64 * KIB, 16 * KIB),  # section 4
              4: (128 * KIB, 16 * KIB), 5: (256 * KIB, 16 * KIB), 6: (1024 * KIB, 32 * KIB),
              7: (2048 * KIB, 64 * KIB), 8: (4096 * KIB, 64 * KIB), 9: (64 * KIB, 4 * KIB)}
DATA_FRAME, INLINE_FRAME = 1, 2
ENTRY, INLINE_MAX = 56, 3496
FULL_HASH_MAX = 64 << 20  # larger files are listed as their stored ranges


class Geometry:
    """The arithmetic of section 4. Group j covers plain bytes from j * group_size."""

    def __init__(self, id_):
        self.id = id_
        self.segment, self.frame = GEOMETRIES[id_]
        self.frames = self.segment // self.frame
        self.record = max(512, 1 << (128 + ENTRY * self.frames - 1).bit_length())
        self.segments = BLOCK // self.record  # of a group
        self.group_size = self.segments * self.segment
        self.max_size = (32 + (128 << 21)) * self.group_size

    def meta(self, group):
        at = BLOCK + group * (BLOCK + self.group_size)
        q = group - 32
        return at if q < 0 else at + BLOCK * ((q >> 7) + 1 + (q >> 14) + 1 + (q >> 21) + 1)

    def host(self, plain):
        group = plain // self.group_size
        return self.meta(group) + BLOCK + plain - group * self.group_size

    def host_length(self, size):
        return self.host(size - 1) + 1 if size else BLOCK


class Container:
    """An open host file. With may_lack_header, one without a durable header reads as empty (section 8.2)."""

    def __init__(self, vault, fd, file_id, geometry_id, object_type, what, may_lack_header):
        self.vault, self.fd, self.file_id, self.what = vault, fd, file_id, what
        self.host = HostFile(fd, vault.replayed.get(file_id))
        self.header = block = self.host.read(BLOCK, 0)
        self.lacks_header = len(block) < BLOCK or block[:8] != b"COFFERC1" or not crc_holds(block, 8)
        self.size = 0
        if self.lacks_header:
            self.need(may_lack_header, "header: too short, or magic or CRC differs")
            return
        self.need(u16(block, 12) == VERSION, "header: version is not 1")
        self.need(u32(block, 24) == 0, "header: unknown incompat feature")
        self.suite, self.digest = block[14], block[15]
        self.need(self.suite in SUITES, "header: unknown suite")
        self.need(self.digest in DIGESTS.values(), "header: unknown digest")
        if self.digest == BLAKE3:
            vault.no_blake3 = True
        sizes = u32(block, 16), u32(block, 20)
        self.need(sizes == GEOMETRIES.get(geometry_id), "header: geometry is not the name's")
        self.geometry = Geometry(geometry_id)
        keys = vault.keys
        self.need(block[40:56] == keys.vault_id, "header: belongs to another vault")
        m = hkdf_expand(keys.content, b"coffer v1 file" + file_id + block[14:24] + block[36:40], 96)
        self.k_enc, self.k_auth = m[:32], m[32:64]
        self.need(block[72:104] == m[64:], "header: key commitment differs")
        self.need(mac(self.k_auth, text(b"coffer header v1", 16) + block[:8] + bytes(4) + block[12:4064]) == block[4064:],
                  "header: HMAC differs")
        self.need(block[56:72] == file_id, "header: file id is not the name's")
        self.need(block[174] <= 1 and is_zero(block[175:512]) and u32(block, 156) <= 1, "header: reserved bytes are not zero")
        self.need(max(u32(block, 152), u32(block, 168)) < 10**9, "header: a second of more than 10^9 nanoseconds")
        self.need(block[173] == object_type, "header: object type is not the name's")
        self.size, self.body_kind, self.body = u64(block, 112), block[172], block[512:4064]
        self.need(self.size <= self.geometry.max_size, "header: plain size is beyond the largest file")
        st = os.fstat(fd)
        self.need(self.host.size == self.geometry.host_length(self.size) or vault.state.unclean_time(st.st_ctime_ns),
                  f"plain size {self.size} and host length {self.host.size} differ")

    def need(self, holds, what):
        if not holds:
            raise Refused(f"{self.what}: {what}")

    def frames(self):
        """Every stored frame as (plain offset, plaintext), ascending, each verified."""
        if self.lacks_header:
            return
        kind, body, g = self.body_kind, self.body, self.geometry
        self.need(kind <= 3, "header: unknown body kind")
        if kind == 0:
            self.need(is_zero(body), "header: body is not zero")
        elif kind == 1:
            entry, length = body[:ENTRY], u32(body, 0) & 0xFFFFFF
            self.need(0 < length <= INLINE_MAX, "inline body: empty or too long")
            self.need(is_zero(body[ENTRY + length:]), "inline body: reserved bytes are not zero")
            yield from self.frame(INLINE_FRAME, 0, 0, entry, body[ENTRY:ENTRY + length])[1]
        elif kind == 2:
            self.need(g.frames <= 16, "header: single body in a geometry without one")
            self.need(is_zero(body[g.record:]), "header: reserved bytes of the body are not zero")
            yield from self.segment(0, body[:g.record])
        else:
            self.need(is_zero(body[2560:]), "header: reserved bytes of the body are not zero")
            for group in range(32):
                yield from self.group(group, body[16 * group:16 * group + 16])
            for index in range(128):
                yield from self.node(3, index, body[512 + 16 * index:528 + 16 * index])

    def pinned(self, level, index, at, first_group, pin):
        what = f"{'tree node of level %d' % level if level else 'meta block'} {index}"
        self.need(first_group * self.geometry.group_size < self.size, f"{what}: lies beyond the plain size")
        block = self.host.read(BLOCK, at)
        self.need(len(block) == BLOCK, f"{what}: beyond the end of the host file")
        made = mac(self.k_auth, text(b"coffer pin v1", 16) + struct.pack("<2Q", level, index) + block)[:16]
        self.need(hmac.compare_digest(made, pin), f"{what}: pin differs")
        return block

    def node(self, level, index, pin):
        if is_zero(pin):
            return
        first = 32 + (index << 7 * level)
        block = self.pinned(level, index, self.geometry.meta(first) - level * BLOCK, first, pin)
        self.need(block[:4] == b"CTN1" and crc_holds(block, 4) and u64(block, 8) == level and u64(block, 16) == index
                  and block[32:48] == self.file_id and is_zero(block[48:64]) and is_zero(block[2112:]),
                  f"tree node of level {level} {index}: malformed")
        for child in range(128):
            below, pin = 128 * index + child, block[64 + 16 * child:80 + 16 * child]
            yield from self.node(level - 1, below, pin) if level > 1 else self.group(32 + below, pin)

    def group(self, group, pin):
        if is_zero(pin):
            return
        g = self.geometry
        block = self.pinned(0, group, g.meta(group), group, pin)
        for k in range(g.segments):
            yield from self.segment(group * g.segments + k, block[k * g.record:(k + 1) * g.record])

    def segment(self, segment, record):
        if is_zero(record):
            return
        g, what = self.geometry, f"segment {segment}"
        self.need(record[:4] == b"CSR1" and crc_holds(record, 4), f"{what}: record: magic or CRC differs")
        self.need(u64(record, 8) == segment and record[24:40] == self.file_id, f"{what}: record of another segment or file")
        self.need(u64(record, 16) >= 1, f"{what}: record: generation is 0")
        self.need(is_zero(record[80:128]) and is_zero(record[128 + ENTRY * g.frames:]),
                  f"{what}: record: reserved bytes are not zero")
        leaves, stored = b"", []
        for i in range(g.frames):
            entry, at = record[128 + ENTRY * i:128 + ENTRY * (i + 1)], segment * g.segment + i * g.frame
            length = u32(entry, 0) & 0xFFFFFF
            self.need(length <= g.frame and (length == 0 or at + length <= self.size), f"{what}: frame {i}: too long")
            sealed = self.host.read(length, g.host(at)) if length else b""
            leaf, opened = self.frame(DATA_FRAME, segment, i, entry, sealed)
            leaves += leaf
            stored += opened
        made = digest(self.digest, struct.pack("<Q", segment) + self.file_id + leaves)
        self.need(made in (record[48:80], None), f"{what}: segment digest differs")
        yield from stored

    def frame(self, type_, segment, index, entry, sealed):
        """The leaf of a frame, and a list of its plain offset and plaintext, empty for a hole."""
        what = f"segment {segment}: frame {index}"
        word, generation, nonce, tag, leaf = struct.unpack("<II24s16s8s", entry)
        if word & 0xFFFFFF == 0:
            self.need(is_zero(entry), f"{what}: a hole's entry is not zero")
            return leaf, []
        self.need(word >> 24 == 0, f"{what}: unknown flags")
        self.need(len(sealed) == word, f"{what}: beyond the end of the host file")
        at = segment * self.geometry.segment + index * self.geometry.frame
        self.need(at + word <= self.size, f"{what}: data beyond the plain size")
        header = struct.pack("<4s4BQ4I", b"CFR1", VERSION, type_, 0, self.suite, segment, index, word, generation, 0)
        made = digest(self.digest, header + sealed)
        self.need(made is None or made[:8] == leaf, f"{what}: leaf differs")
        ad = text(b"coffer frame v1", 16) + self.vault.keys.vault_id + self.file_id + header
        try:
            return leaf, [(at, SUITES[self.suite][1](self.k_enc, nonce, sealed + tag, ad))]
        except InvalidTag:
            raise Refused(f"{self.what}: {what}: authentication failed") from None

    def content(self):
        """All bytes, holes as zeros. For small objects."""
        out = bytearray(self.size)
        for at, plain in self.frames():
            out[at:at + len(plain)] = plain
        return bytes(out)

    def summary(self):
        """What the manifest says of a file's content."""
        if self.size <= FULL_HASH_MAX:
            return {"size": self.size, "sha256": hashlib.sha256(self.content()).hexdigest()}
        ranges, frame = [], self.geometry.frame  # maximal runs of stored frames, the last one cut at the plain size
        for at, plain in self.frames():
            if not ranges or at != ranges[-1][0] + ranges[-1][1]:
                ranges.append([at, 0, hashlib.sha256()])
            length = min(frame, self.size - at)
            ranges[-1][1] += length
            ranges[-1][2].update(plain.ljust(length, b"\0"))
        return {"size": self.size, "stored": [{"offset": a, "length": n, "sha256": h.hexdigest()} for a, n, h in ranges]}
