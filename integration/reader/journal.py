"""Section 13 of FORMAT.md: the journal that a session left behind, and host files as a replay would leave them."""

import hmac
import json
import os
import re
import sys

sys.dont_write_bytecode = True

from primitives import BLOCK, Refused, crc32c, crc_holds, i64, is_zero, mac, need, note, text, u16, u32, u64  # noqa: E402

HEADER, SECTOR, RECORD = 4096, 512, 96
PIECE_NAME = re.compile(rb"journal\.[0-9]{4}")
FIRST, COMMIT = 1, 2
FILE, EXCHANGE, MAKE, END = 1, 2, 3, 4
NONE = [None] * BLOCK  # of a block: where it stands as on the host


class Piece:
    """A piece of this journal, by the better of its two headers. `end` and `chain` are those of its last good record."""

    def __init__(self, journal, name, data):
        self.name, self.data, self.sequence = name, data, None
        for at in (0, HEADER // 2):
            b = data[at:at + SECTOR]
            if len(b) < SECTOR or b[:8] != b"COFFERJ1" or not crc_holds(b, 8):
                continue  # torn, or never written
            need(u16(b, 12) == 1, f"{name}: version is not 1")
            if b[16:32] != journal.vault_id or b[32:48] != journal.id:
                continue
            sequence, size, durable, recycled = u64(b, 48), u32(b, 64), u64(b, 72), u64(b, 80)
            made = mac(journal.key, text(b"coffer piece v1", 16) + b[:8] + bytes(4) + b[12:480])
            if not (hmac.compare_digest(made, b[480:]) and sequence < 1 << 40 and HEADER + SECTOR <= size <= 8 << 20 and size % SECTOR == 0
                    and u64(b, 56) == sequence * (size - HEADER) and durable <= u64(b, 56) and recycled <= (sequence + 1) * (size - HEADER)
                    and is_zero(b[14:16]) and is_zero(b[68:72]) and is_zero(b[104:480])):
                note(f"{name}: a header that is not authentic")
                continue
            journal.recycled = max(journal.recycled, recycled)
            if self.sequence is None or (sequence, recycled) > (self.sequence, self.given_up):
                self.sequence, self.size, self.durable, self.given_up, self.chain = sequence, size, durable, recycled, b[88:104]
        if self.sequence is not None:
            self.start = self.end = self.sequence * (self.size - HEADER)
            self.first_chain = self.chain
            self.limit = self.start + self.size - HEADER

    def record(self, journal, at):
        """The record at a log position as (head, bulk, header), None where its header is not right; only its MAC is not looked at."""
        off = HEADER + at - self.start
        b = self.data[off:off + RECORD]
        if len(b) < RECORD or b[:4] != b"CJR1" or not crc_holds(b, 4):
            return None
        head, bulk = u32(b, 16), u32(b, 20)
        if not (b[12] == 1 and b[13] <= 3 and is_zero(b[14:16]) and is_zero(b[72:80]) and u64(b, 24) == at and u64(b, 40) <= at
                and u64(b, 48) <= at and b[56:72] == journal.id and RECORD + head + bulk <= self.limit - at):
            return None
        payload = self.data[off + RECORD:off + RECORD + head + bulk]
        return payload[:head], payload[head:], b

    def records(self, journal):
        """Good records, from the first one to the first that is not."""
        while self.end < self.limit:
            found = self.record(journal, self.end)
            if found is None:
                return
            head, bulk, b = found
            made = mac(journal.key, text(b"coffer record v1", 16) + self.chain + b[:4] + bytes(4) + b[8:80] + head)[:16]
            if len(head) + len(bulk) != u32(b, 16) + u32(b, 20) or crc32c(head + bulk) != u32(b, 8) or not hmac.compare_digest(made, b[80:]):
                return
            self.end += -(-(RECORD + len(head) + len(bulk)) // SECTOR) * SECTOR
            self.chain = made
            journal.recycled = max(journal.recycled, u64(b, 48))
            yield self.end, head, bulk, b


class Journal:
    """What a log delivers: `transactions` as (LSN, head, bulk); `lost`, whether committed ones are missing behind them."""

    def __init__(self, dir_fd, key, vault_id, id_):
        self.key, self.vault_id, self.id, self.recycled = key, vault_id, id_, 0
        pieces = []
        for name in sorted(map(os.fsencode, os.listdir(dir_fd))):
            if PIECE_NAME.fullmatch(name):
                with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd), "rb") as f:
                    pieces.append(Piece(self, os.fsdecode(name), f.read()))
        pieces = sorted((p for p in pieces if p.sequence is not None), key=lambda p: p.sequence)
        for a, b in zip(pieces, pieces[1:]):
            need(a.sequence != b.sequence and a.size == b.size, f"{a.name} and {b.name} contradict each other")
        records = {p.sequence: list(p.records(self)) for p in pieces}
        run = self.run(pieces)
        self.gap = max([self.recycled, *(p.end for p in run[-1:])])
        self.lost = any([self.proves_loss(p) for p in pieces])
        self.transactions = list(self.assemble([r for p in run for r in records[p.sequence]]))

    def run(self, pieces):
        """The pieces that hold what is to be replayed."""
        run = []
        for p in pieces:
            if not run and p.start <= self.recycled < p.limit:
                run.append(p)
            elif run and run[-1].end == run[-1].limit and p.sequence == run[-1].sequence + 1 and p.first_chain == run[-1].chain:
                run.append(p)
        return run

    def proves_loss(self, piece):
        """Step 4: something later says that committed transactions are missing."""
        if piece.limit <= self.gap:
            return False
        later = [piece.record(self, at) for at in range(max(piece.start, self.gap), piece.limit, SECTOR)]
        return piece.start >= self.gap and piece.durable > self.gap or any(r is not None and u64(r[2], 40) > self.gap for r in later)

    def assemble(self, records):
        number, open_, seen = 0, False, False
        for end, head, bulk, b in records:
            if b[13] & FIRST:
                need(not open_ and (not seen or u64(b, 32) == number), "journal: records out of order")
                heads, bulks, number, open_, seen = b"", b"", u64(b, 32), True, True
            elif not open_:
                need(not seen and u64(b, 24) <= self.recycled, "journal: records out of order")
                continue
            need(u64(b, 32) == number and not (head and bulks), "journal: records out of order")
            heads, bulks = heads + head, bulks + bulk
            if b[13] & COMMIT:
                open_, number = False, number + 1
                if end > self.recycled:
                    yield end, heads, bulks


class Replayed:
    """Step R3: `files`, file id -> its blocks and its length, -1 where that is the host's; `made`, file id -> mode of files that count as made; `removed`, ids;
    `paths`, file id -> the last path."""

    def __init__(self, journal):
        self.files, self.made, self.removed, self.paths = {}, {}, set(), {}
        if journal.lost:
            note("journal: committed transactions are lost: what is left is shown")
        for _, head, bulk in journal.transactions:
            self.names(head)
            apply(self.files, head, bulk)
        note(f"journal: {len(journal.transactions)} transactions are shown as if replayed")

    def names(self, head):
        if not head or head[0] not in (FILE, MAKE, END):
            return
        id_, at = head[16:32], {FILE: 48, MAKE: 64, END: 32}[head[0]]
        path = []
        for _ in range(u16(head, 2) if len(head) >= at else 0):
            need(at < len(head) and head[at] and at + head[at] < len(head), "journal: malformed path")
            path.append(head[at + 1:at + 1 + head[at]])
            at += 1 + head[at]
        if path:
            self.paths[id_] = path
        if head[0] == MAKE:
            self.made[id_] = u32(head, 48)
        elif head[0] == END:
            need(len(head) == at and head[1] <= 1 and is_zero(head[4:16]), "journal: malformed head")
            self.made.pop(id_, None)
            if head[1]:
                self.removed.add(id_)


def apply(files, head, bulk):
    need(head and head[0] in (FILE, EXCHANGE, MAKE, END), "journal: unknown kind of transaction")
    if head[0] in (EXCHANGE, END):
        need(not bulk, "journal: bulk is not that of the images")
        return
    at = 64 if head[0] == MAKE else 48
    need(len(head) >= at and head[1] <= 3 and u32(head, 12) < 10**9, "journal: malformed head")
    if head[0] == MAKE:
        need(u32(head, 48) <= 0o7777 and is_zero(head[60:64]) and i64(head, 32) >= 0 and not head[1] & 2 and u16(head, 2), "journal: malformed head")
        files.pop(head[16:32], None)
    for _ in range(u16(head, 2)):
        need(at < len(head) and head[at], "journal: malformed path")
        at += 1 + head[at]
    freed, images = u32(head, 4), u32(head, 8)
    known = at + 16 * (freed + images)
    need((len(head) > known if head[1] & 2 else len(head) == known) and (len(head) - at) % 16 == 0, "journal: malformed head")
    ranges = [(u64(head, k), u64(head, k + 8)) for k in range(at, len(head), 16)]
    blocks, length = files.setdefault(head[16:32], ({}, -1))
    for off, n in ranges[:freed]:
        for k in [k for k in blocks if off <= k * BLOCK < off + n]:
            del blocks[k]
    need(sum(n for _, n in ranges[freed:]) == len(bulk), "journal: bulk is not that of the images")
    for i, (off, n) in enumerate(ranges[freed:]):
        for k in range(0, n, BLOCK) if i < images else ():
            blocks[(off + k) // BLOCK] = [*bulk[k:min(k + BLOCK, n)], *NONE][:BLOCK]
        if i >= images:
            need(n > 0 and off // BLOCK == (off + n - 1) // BLOCK, "journal: a patch beyond its block")
            blocks.setdefault(off // BLOCK, NONE[:])[off % BLOCK:off % BLOCK + n] = bulk[:n]
        bulk, length = bulk[n:], max(length, off + n) if length >= 0 else -1
    if i64(head, 32) >= 0:
        length = i64(head, 32)
        for k in [k for k in blocks if (k + 1) * BLOCK > length]:
            blocks[k] = [*blocks[k][:max(0, length - k * BLOCK)], *NONE][:BLOCK]
    files[head[16:32]] = blocks, length


class HostFile:
    """A host file as a replay would leave it."""

    def __init__(self, fd, replayed):
        self.fd = fd
        self.blocks, length = replayed or ({}, -1)
        self.size = length
        if length < 0:
            self.size = max([os.fstat(fd).st_size, *(k * BLOCK + i + 1 for k, block in self.blocks.items() for i, b in enumerate(block) if b is not None)])

    def read(self, n, at):
        n = max(0, min(n, self.size - at))
        out = bytearray(os.pread(self.fd, n, at).ljust(n, b"\0"))
        for k in range(at // BLOCK, -(-(at + n) // BLOCK)):
            for i, b in enumerate(self.blocks.get(k, ()), k * BLOCK - at):
                if b is not None and 0 <= i < n:
                    out[i] = b
        return bytes(out)


def main():
    """Prints the log in a directory; key, vault id and journal id are in hex."""
    fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    try:
        journal = Journal(fd, *map(bytes.fromhex, sys.argv[2:5]))
    except Refused as err:
        print("refused:", err, file=sys.stderr)
        return 1
    print(json.dumps({"lost": journal.lost, "transactions": [{"lsn": lsn, "head": head.hex(), "bulk": bulk.hex()}
                                                             for lsn, head, bulk in journal.transactions]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
