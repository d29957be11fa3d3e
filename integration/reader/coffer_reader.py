#!/usr/bin/python3
"""Reads a whole Coffer vault, verifies everything that FORMAT.md says a reader MUST reject, and prints a manifest.

    coffer_reader.py VAULT --passphrase-file F | --keyfile F | --identity F | --recovery-key-file F  [--json] [--recover]

The layouts are read from FORMAT.md alone ("section" below is a section of it), to prove that it suffices. A few refusals of values
that no writer makes were added when the vectors in container/testdata showed that its text had left them open. It needs Python 3.11 and Debian's python3-cryptography, writes nothing, and takes no lock. BLAKE3 is in neither: the
digests of such vaults go unverified, with a note; tags and pins are verified always. The manifest goes to standard output,
sorted by plain path, notes to standard error. Exit 0: all is well; 1: something was refused, named on standard error.
"""

import argparse
import errno
import hashlib
import hmac
import json
import os
import re
import stat
import sys

sys.dont_write_bytecode = True  # leave nothing beside the source, which may be a checkout

from agefile import read_identities  # noqa: E402
from container import GEOMETRIES, Container  # noqa: E402
from journal import Journal, Replayed  # noqa: E402
from primitives import (VERSION, Keys, Refused, base64url_decode, escape, is_zero, mac, need, note, open_siv, text,  # noqa: E402
                        u16, u64)
from vaultfiles import State, decode_recovery_key, read_config, unwrap  # noqa: E402

FILE, DIR, SYMLINK, FIFO, SOCKET, CHAR_DEVICE, BLOCK_DEVICE = range(1, 8)  # section 8
TYPE_NAMES = {FILE: "file", DIR: "dir", SYMLINK: "symlink", FIFO: "fifo", SOCKET: "socket",
              CHAR_DEVICE: "char", BLOCK_DEVICE: "block"}
HOST_TYPES = {FILE: stat.S_IFREG, DIR: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, FIFO: stat.S_IFIFO,
              SOCKET: stat.S_IFSOCK, CHAR_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
NO_HEADER, LONG, CONTAINER_SYMLINK = 1, 2, 4
SEALED_NAME = re.compile(rb"[A-Za-z0-9_-]+")
SEALED_NAME_LENGTHS = {16 + n for n in (*range(32, 175, 16), 175)}
ATTRIBUTE_SPACES = "user.coffer", "trusted.coffer"


# Section 8: names.

class Link:
    """A sealed name, opened. `key` is the SHA-256 of the plain name; `name` is None until a long name's sidecar is read."""

    def __init__(self, vault, parent_id, host, what):
        self.host, self.what = host, what
        raw = base64url_decode(host)
        p = open_siv(vault.keys.names, raw, text(b"coffer name v1", 16) + parent_id) if raw else None
        need(p, f"{what}: does not open under its directory")
        self.type, self.geometry_id, self.flags, self.name_length = p[1], p[2], p[3], p[4]
        self.id, self.sequence = p[5:21], u64(p, 21)
        is_container = self.type == FILE or self.flags & CONTAINER_SYMLINK
        is_long = 29 + self.name_length > 175
        stored = p[29:29 + (32 if is_long else self.name_length)]
        need(p[0] == VERSION and self.type in TYPE_NAMES and self.flags < 8 and self.name_length >= 1
             and bool(self.flags & LONG) == is_long
             and (not self.flags & CONTAINER_SYMLINK or self.type == SYMLINK)
             and (is_container or not self.flags & NO_HEADER)
             and (self.geometry_id in GEOMETRIES if is_container else self.geometry_id == 0), f"{what}: malformed")
        padded = min(-(-(29 + len(stored)) // 16) * 16, 175)
        need(len(p) == padded and is_zero(p[29 + len(stored):]), f"{what}: wrong padding")
        self.name = None if is_long else stored
        self.key = stored if is_long else hashlib.sha256(stored).digest()
        if not is_long:
            self.check_name()

    def check_name(self):
        need(self.name not in (b".", b"..") and b"/" not in self.name and b"\0" not in self.name,
             f"{self.what}: not a name that a directory can hold")

    def read_sidecar(self, vault, parent_id, dir_fd):
        sealed = read_at(dir_fd, self.host + b".name", 16 + 255)
        need(sealed is not None, f"{self.what}: long name without its sidecar")
        self.name = open_siv(vault.keys.names, sealed, text(b"coffer long name v1", 24) + parent_id)
        need(self.name is not None and len(self.name) == self.name_length
             and hashlib.sha256(self.name).digest() == self.key, f"{self.what}: its sidecar is not good")
        self.check_name()


def open_at(dir_fd, name, flags=0):
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | flags, dir_fd=dir_fd)


def read_at(dir_fd, name, limit):
    """At most limit + 1 bytes of a small host file, None where there is none."""
    try:
        fd = open_at(dir_fd, name)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as f:
        return f.read(limit + 1)


class Vault:
    def __init__(self, path, kind, secret, recover):
        self.root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        data = read_at(self.root_fd, b".coffer/config", 1 << 20)
        need(data is not None, "config: not there")
        config, covered, made = read_config(data)
        if read_at(self.root_fd, b".coffer/config.bak", 1 << 20) != data:
            note("config.bak: not the same bytes as config")
        master = decode_recovery_key(secret) if kind == "recovery" else unwrap(config, kind, secret)
        self.keys = Keys(master, config["vault_id"])
        need(hmac.compare_digest(self.keys.commitment, config["commitment"]), "config: the key is another vault's")
        need(hmac.compare_digest(mac(self.keys.config, covered), made), "config: HMAC differs")
        try:
            state_fd = open_at(self.root_fd, b".coffer/state")
        except FileNotFoundError:
            state_fd = None
        self.state = State(state_fd, self.keys, recover)
        self.replayed = {}  # file id -> its last state in the journal
        self.lacking, self.hidden = {}, set()  # directory id -> {host name: mode} of files that R5 makes; host names that it removes
        if self.state.journal_id:
            coffer_fd = open_at(self.root_fd, b".coffer", os.O_DIRECTORY)
            r = Replayed(Journal(coffer_fd, self.keys.journal, self.keys.vault_id, self.state.journal_id))
            os.close(coffer_fd)
            self.replayed = r.files
            self.names_of(r)
        self.no_blake3 = False
        self.host_inodes = {}  # object id -> (device, inode, path), section 8.5
        self.entries = []

    def names_of(self, r):
        """Step R5: the names that differ from the host's."""
        found = {}
        if r.made or r.removed:
            self.find(self.root_fd, self.keys.vault_id, found)
        for id_, mode in r.made.items():
            if id_ not in found:
                parent = self.keys.vault_id
                for host in r.paths[id_][:-1]:
                    parent = Link(self, parent, host, f"journal: {escape(host)}").id
                self.lacking.setdefault(parent, {})[r.paths[id_][-1]] = mode
        for id_ in r.removed & found.keys() & r.paths.keys():
            self.hidden |= found[id_] & {r.paths[id_][-1]}

    def find(self, fd, id_, found):
        """Object id -> host names, of all that opens."""
        for host in map(os.fsencode, os.listdir(fd)):
            if not SEALED_NAME.fullmatch(host) or 3 * len(host) // 4 not in SEALED_NAME_LENGTHS:
                continue
            try:
                link = Link(self, id_, host, "journal")
            except Refused:
                continue
            found.setdefault(link.id, set()).add(host)
            if link.type == DIR:
                sub = open_at(fd, host, os.O_DIRECTORY)
                self.find(sub, link.id, found)
                os.close(sub)

    def walk(self):
        self.directory(self.root_fd, self.keys.vault_id, b"")
        if self.no_blake3:
            note("digests and leaves of BLAKE3 were not verified: Python has no such function")
        return sorted(self.entries, key=lambda e: e[0])

    def directory(self, fd, id_, path):
        groups = {}
        lacking = self.lacking.get(id_, {})
        for host in sorted({*map(os.fsencode, os.listdir(fd)), *lacking} - self.hidden):
            what = f"{escape(path) or '/'}: sealed name {escape(host)}"
            if path == b"" and host == b".coffer" or host.endswith(b".name"):
                continue
            if not SEALED_NAME.fullmatch(host) or 3 * len(host) // 4 not in SEALED_NAME_LENGTHS:
                note(f"{what}: foreign, ignored")
                continue
            link = Link(self, id_, host, what)
            link.made = lacking.get(host)
            groups.setdefault(link.key, []).append(link)
        for links in groups.values():
            link = self.winner(fd, links)
            if link.name is None:
                link.read_sidecar(self, id_, fd)
            self.entry(fd, link, path + b"/" + link.name if path else link.name)

    def winner(self, dir_fd, links):
        """Section 8.1, with its exception."""
        links.sort(key=lambda link: link.sequence, reverse=True)
        while len(links) > 1:
            first, second = links[:2]
            need(first.sequence != second.sequence, f"{first.what}: two links with one sequence and one plain name")
            if not (self.may_lack_header(first) and self.container(dir_fd, first).lacks_header):
                for loser in links[1:]:
                    note(f"{loser.what}: loser, hidden")
                break
            note(f"{first.what}: no header, yields to its loser")
            del links[0]
        return links[0]

    def may_lack_header(self, link):
        return bool(link.flags & NO_HEADER) and self.state.unclean_sequence(link.sequence)

    def container(self, dir_fd, link):
        """The caller closes container.fd, or leaves it to the end of the process."""
        object_type = FILE if link.type == FILE else SYMLINK
        if link.made is None:
            st = os.stat(link.host, dir_fd=dir_fd, follow_symlinks=False)
            need(stat.S_ISREG(st.st_mode), f"{link.what}: type is not the host object's")
            fd = open_at(dir_fd, link.host)
        else:
            fd = os.memfd_create("made")  # the host file as R5 makes it: empty
        return Container(self, fd, link.id, link.geometry_id, object_type, link.what,
                         self.may_lack_header(link))

    def entry(self, dir_fd, link, path):
        what = link.what = f"{escape(path)} ({escape(link.host)})"
        if link.made is not None:
            container = self.container(dir_fd, link)
            self.entries.append((path, {"path": escape(path), "type": TYPE_NAMES[FILE], "mode": f"{link.made:04o}", **container.summary()}))
            os.close(container.fd)
            return
        st = os.stat(link.host, dir_fd=dir_fd, follow_symlinks=False)
        seen = self.host_inodes.setdefault(link.id, (st.st_dev, st.st_ino, path))
        need(seen[:2] == (st.st_dev, st.st_ino), f"{what}: another object than {escape(seen[2])}, under one object id")
        host_type = stat.S_IFREG if link.flags & CONTAINER_SYMLINK else HOST_TYPES[link.type]
        need(stat.S_IFMT(st.st_mode) == host_type, f"{what}: type is not the host object's")
        out = {"path": escape(path), "type": TYPE_NAMES[link.type], "mode": f"{stat.S_IMODE(st.st_mode):04o}"}
        self.entries.append((path, out))
        if link.type == FILE:
            container = self.container(dir_fd, link)
            out.update(container.summary())
            os.close(container.fd)
        elif link.type == DIR:
            fd = open_at(dir_fd, link.host, os.O_DIRECTORY)
            self.directory(fd, link.id, path)
            os.close(fd)
        elif link.type == SYMLINK:
            target = self.target(dir_fd, link)
            out.update(mode="0777", size=len(target), target=escape(target))
        elif link.type in (CHAR_DEVICE, BLOCK_DEVICE):
            out["device"] = f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
        self.attributes(f"/proc/self/fd/{dir_fd}/{os.fsdecode(link.host)}", link.id, what, out)

    def target(self, dir_fd, link):
        if link.flags & CONTAINER_SYMLINK:
            container = self.container(dir_fd, link)
            need(0 < container.size <= 4095, f"{link.what}: target is empty or too long")
            target = container.content()
            os.close(container.fd)
            need(b"\0" not in target, f"{link.what}: target holds NUL")
            return target
        host = os.fsencode(os.readlink(link.host, dir_fd=dir_fd))
        raw = base64url_decode(host)
        target = open_siv(self.keys.names, raw, text(b"coffer symlink v1", 24) + link.id) if raw else None
        need(target is not None, f"{link.what}: target does not open")
        need(target and b"\0" not in target, f"{link.what}: target is empty or holds NUL")
        return target

    def attributes(self, path, link_id, what, out):
        """Sections 8.6 and 8.7: the extended attributes, and the sealed mode in place of the host's."""
        try:
            names = sorted(os.listxattr(path, follow_symlinks=False))
        except OSError as err:
            if err.errno != errno.ENOTSUP:
                raise
            return
        found = {}
        for host in names:
            space, dot, rest = host.partition(".coffer")
            if space + dot not in ATTRIBUTE_SPACES or rest and rest[0] != ".":
                continue
            sealed = os.getxattr(path, host, follow_symlinks=False)
            if rest:
                name, value = self.attribute(os.fsencode(rest[1:]), sealed, link_id, f"{what}: attribute {host}")
                need(name not in found, f"{what}: attribute {escape(name)} twice")
                found[name] = value
            else:
                self.sealed_mode(sealed, link_id, f"{what}: attribute {host}", out)
        if found:
            out["xattrs"] = {escape(name): hashlib.sha256(value).hexdigest() for name, value in sorted(found.items())}

    def attribute(self, host, sealed, link_id, what):
        t = base64url_decode(host)
        n = open_siv(self.keys.xattr, t, text(b"coffer xattr v1", 24) + link_id) if t else None
        need(n and n[0] <= 1, f"{what}: name does not open")
        value = open_siv(self.keys.xattr, sealed, text(b"coffer xattr value v1", 24) + link_id + t)
        need(value is not None, f"{what}: value does not open")
        if n[0] == 0:
            name = n[1:]
            need(0 < len(name) <= 163, f"{what}: malformed")
        else:
            need(value and len(value) > value[0] > 163, f"{what}: malformed")
            name, value = value[1:1 + value[0]], value[1 + value[0]:]
            need(hashlib.sha256(name).digest() == n[1:], f"{what}: name has another hash")
        need(b"\0" not in name, f"{what}: name holds NUL")
        return name, value

    def sealed_mode(self, sealed, link_id, what, out):
        a = open_siv(self.keys.xattr, sealed, text(b"coffer attributes v1", 24) + link_id)
        need(a and len(a) == 4 and a[0] == VERSION and a[1] <= 1, f"{what}: does not open, or malformed")
        if a[1] & 1 == 0:
            return
        plain, added = u16(a, 2), 0o700 if out["type"] == "dir" else 0o600
        need(plain <= 0o7777, f"{what}: malformed")
        if int(out["mode"], 8) == (plain & ~(0 if out["type"] == "dir" else 0o6000) | added):
            out["mode"] = f"{plain:04o}"


def print_lines(entries):
    for e in entries:
        words = [f"{e['type']:<7}", e["mode"], str(e.get("size", "-")), e.get("sha256") or e.get("device") or "-", e["path"]]
        print(*words, *(["->", e["target"]] if "target" in e else []))
        for r in e.get("stored", ()):
            print("        stored", r["offset"], r["length"], r["sha256"])


def read_secret(args):
    """The kind of key slot, or recovery, and the secret."""
    with open(args.passphrase_file or args.keyfile or args.identity or args.recovery_key_file, "rb") as f:
        data = f.read((1 << 20) + 1)
    if args.passphrase_file:
        return "passphrase", data.removesuffix(b"\n")
    if args.keyfile:
        return "keyfile", data
    if args.identity:
        return "age", read_identities(data.decode("ascii", "replace"))
    return "recovery", data.decode("ascii", "replace")


def main():
    parser = argparse.ArgumentParser(description="Verify a Coffer vault and print a manifest of it.")
    parser.add_argument("vault")
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--passphrase-file", help="one newline at its end is not part of the passphrase")
    secret.add_argument("--keyfile")
    secret.add_argument("--identity", help="X25519 identities of age")
    secret.add_argument("--recovery-key-file")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.add_argument("--recover", action="store_true", help="open a vault that was copied while not clean")
    args = parser.parse_args()
    try:
        entries = [entry for _, entry in Vault(args.vault, *read_secret(args), args.recover).walk()]
    except (Refused, OSError) as err:
        print("refused:", err, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"entries": entries}, indent=1))
    else:
        print_lines(entries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
