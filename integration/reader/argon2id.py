"""Argon2id, version 0x13 (RFC 9106), without secret and associated data.

Debian 12's python3-cryptography has no Argon2id. This one fills its lanes one after the other and manages about 5 MiB each
second and pass: enough for a vault whose key slots were made for tests, minutes for a real one (its recovery key opens at once).
"""

import struct
from hashlib import blake2b

MASK = 0xFFFFFFFFFFFFFFFF
LOW = 0xFFFFFFFF
WORDS = 128  # u64 words of a block of 1 KiB
SLICES = 4
VERSION, TYPE_ID = 0x13, 2

# The 16 runs of the permutation P over a block seen as an 8 x 8 matrix of word pairs: rows, then columns.
ROWS = [list(range(16 * i, 16 * i + 16)) for i in range(8)]
COLUMNS = [[w for k in range(8) for w in (2 * i + 16 * k, 2 * i + 16 * k + 1)] for i in range(8)]
# The four columns and four diagonals of BLAKE2b's round.
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def _long_hash(data, length):
    """H' of RFC 9106, section 3.3."""
    data = struct.pack("<I", length) + data
    if length <= 64:
        return blake2b(data, digest_size=length).digest()
    out, part = b"", blake2b(data).digest()
    while length - len(out) > 64:
        out += part[:32]
        left = length - len(out)
        part = blake2b(part, digest_size=min(left, 64)).digest()
    return out + part


def _compress(x, y):
    """G of RFC 9106, section 3.5, over two blocks given as lists of words."""
    r = [a ^ b for a, b in zip(x, y)]
    z = r[:]
    for run in ROWS + COLUMNS:
        for mix in MIXES:
            ia, ib, ic, id_ = (run[k] for k in mix)
            a, b, c, d = z[ia], z[ib], z[ic], z[id_]
            for turn_d, turn_b in ((32, 24), (16, 63)):
                a = (a + b + 2 * (a & LOW) * (b & LOW)) & MASK
                d ^= a
                d = (d >> turn_d | d << (64 - turn_d)) & MASK
                c = (c + d + 2 * (c & LOW) * (d & LOW)) & MASK
                b ^= c
                b = (b >> turn_b | b << (64 - turn_b)) & MASK
            z[ia], z[ib], z[ic], z[id_] = a, b, c, d
    return [a ^ b for a, b in zip(r, z)]


def _reference(word, pass_, slice_, lane, index, lanes, per_lane):
    """The lane and index of the block that `word` names (RFC 9106, section 3.4.2)."""
    quarter = per_lane // SLICES
    ref_lane = lane if pass_ == 0 and slice_ == 0 else (word >> 32) % lanes
    same = ref_lane == lane
    done = slice_ * quarter if pass_ == 0 else per_lane - quarter
    if same:
        area = done + index - 1
    else:
        area = done - (1 if index == 0 else 0)
    x = (word & LOW) ** 2 >> 32
    position = area - 1 - (area * x >> 32)
    start = 0 if pass_ == 0 or slice_ == SLICES - 1 else (slice_ + 1) * quarter
    return ref_lane, (start + position) % per_lane


def argon2id(password, salt, time, memory_kib, lanes, length):
    """The tag of `length` bytes; `memory_kib` is m of RFC 9106."""
    h0 = blake2b(struct.pack("<6I", lanes, length, memory_kib, time, VERSION, TYPE_ID)
                 + b"".join(struct.pack("<I", len(s)) + s for s in (password, salt, b"", b""))).digest()
    per_lane = memory_kib // (SLICES * lanes) * SLICES
    quarter = per_lane // SLICES
    memory = [[None] * per_lane for _ in range(lanes)]
    for lane in range(lanes):
        for column in range(2):
            block = _long_hash(h0 + struct.pack("<2I", column, lane), 8 * WORDS)
            memory[lane][column] = list(struct.unpack("<128Q", block))

    zeros = [0] * WORDS
    for pass_ in range(time):
        for slice_ in range(SLICES):
            for lane in range(lanes):
                independent = pass_ == 0 and slice_ < SLICES // 2
                for index in range(quarter):
                    column = slice_ * quarter + index
                    if independent and (index % WORDS == 0 or index == 2):
                        counter = [pass_, lane, slice_, lanes * per_lane, time, TYPE_ID, index // WORDS + 1] + [0] * 121
                        addresses = _compress(zeros, _compress(zeros, counter))
                    if pass_ == 0 and column < 2:
                        continue
                    previous = memory[lane][column - 1]
                    word = addresses[index % WORDS] if independent else previous[0]
                    ref_lane, ref_column = _reference(word, pass_, slice_, lane, index, lanes, per_lane)
                    block = _compress(previous, memory[ref_lane][ref_column])
                    if pass_ > 0:
                        block = [a ^ b for a, b in zip(block, memory[lane][column])]
                    memory[lane][column] = block

    final = memory[0][-1]
    for lane in memory[1:]:
        final = [a ^ b for a, b in zip(final, lane[-1])]
    return _long_hash(struct.pack("<128Q", *final), length)
