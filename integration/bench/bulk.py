#!/usr/bin/env python3
"""Measure import, export and sealed streams beside cp and age, in one run.

    go build -o coffer ./cmd/mount
    GOBIN=$PWD go install filippo.io/age/cmd/age@latest filippo.io/age/cmd/age-keygen@latest
    sudo integration/bench/bulk.py --coffer ./coffer --age ./age --dir /some/disk [--reps 3] [--size 4096] [--files 20000] [--cold]

In each repetition every row runs what it measures and what that is compared with one right after the other, so that a slow moment of the machine hits both. The
table has the medians of the times, that of the ratios (above 1: coffer is faster), and the most memory that coffer took. Everything is made below --dir and
removed again. Without --age the rows of it are left out; --cold drops the host's caches before each run and needs root.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def timed(argv, stdin=None, stdout=None):
    """Run a program; return its seconds and its most resident MiB."""
    begin = time.monotonic()
    p = subprocess.Popen(argv, stdin=stdin, stdout=stdout or subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        sys.exit(f"{argv}: exit {p.returncode}\n{message.decode(errors='replace')}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024


class Bench:
    def __init__(self, work, a):
        self.work, self.coffer, self.age, self.cold = work, os.path.abspath(a.coffer), a.age and os.path.abspath(a.age), a.cold
        self.vault, self.passfile, self.mnt = self.path("vault"), self.path("pass"), self.path("mnt")
        os.mkdir(self.mnt)
        with open(self.passfile, "w") as f:
            f.write("correct horse battery staple\n")
        timed([self.coffer, "init", "--passfile", self.passfile, "--kdf-memory", "8", "--kdf-time", "1", "--recovery-file", self.path("recovery"), self.vault])
        with open(self.path("large"), "wb") as f:
            for _ in range(a.size):
                f.write(os.urandom(1 << 20))
        for i in range(a.files):
            if i % 1000 == 0:
                os.makedirs(self.path(f"small/{i // 1000}"))
            with open(self.path(f"small/{i // 1000}/{i}"), "wb") as f:
                f.write(os.urandom(4096))
        with open(self.path("key"), "wb") as f:
            f.write(os.urandom(32))
        if self.age:
            timed([os.path.join(os.path.dirname(self.age), "age-keygen"), "-o", self.path("identity")])
            with open(self.path("identity")) as f:
                self.recipient = next(line.split()[-1] for line in f if line.startswith("# public key"))
        self.vaulted = set()

    def path(self, name):
        return os.path.join(self.work, name)

    def fresh(self):
        """Nobody pays for what was before."""
        shutil.rmtree(self.path("out"), ignore_errors=True)
        os.mkdir(self.path("out"))
        os.sync()
        if self.cold:
            with open("/proc/sys/vm/drop_caches", "w") as f:
                f.write("1")

    def call(self, *args, **kw):
        self.fresh()
        return timed([self.coffer, args[0], "--progress", "none", "--passfile", self.passfile, *args[1:]], **kw)

    def shell(self, command):
        self.fresh()
        return timed(["sh", "-ec", command.replace("%", self.work)])[0]

    def mounted(self, command, after="true"):
        timed([self.coffer, "mount", "--passfile", self.passfile, self.vault, self.mnt])
        try:
            spent = self.shell(command)
            self.shell(after)
            return spent
        finally:
            timed([self.coffer, "umount", self.mnt])

    def imported(self, name):
        """Import a copy, and forget the one before, which the export measures."""
        for old in self.vaulted:
            self.mounted(f"rm -r %/mnt/{old}")
        self.vaulted = {name}
        return self.call("import", self.vault, self.path(name), "/")

    def stream(self, argv, source, sink):
        self.fresh()
        with open(self.path(source), "rb") as i, open(self.path(sink), "wb") as o:
            return timed(argv, stdin=i, stdout=o)

    def rows(self):
        yield "import of the large file: cp + fsync", lambda: self.imported("large"), lambda: self.shell("cp %/large %/out/x; sync %/out/x")
        yield "export of it: cp + fsync", lambda: self.call("export", self.vault, "large", self.path("out")), lambda: self.shell("cp %/large %/out/x; sync %/out/x")
        yield "import of the small files: cp -r into the mount", lambda: self.imported("small"), lambda: self.mounted("cp -r %/small %/mnt/copied; sync -f %/mnt", "rm -r %/mnt/copied")
        yield "export of them: cp -r from the mount, sync", lambda: self.call("export", self.vault, "small", self.path("out")), lambda: self.mounted("cp -r %/mnt/small %/out; sync -f %/out")
        if self.age:
            seal, open_ = [self.coffer, "seal", "--keyfile", self.path("key")], [self.coffer, "open", "--keyfile", self.path("key")]
            yield "seal: age", lambda: self.stream(seal, "large", "sealed"), lambda: self.stream([self.age, "-r", self.recipient], "large", "aged")[0]
            yield "open: age -d", lambda: self.stream(open_, "sealed", "opened"), lambda: self.stream([self.age, "-d", "-i", self.path("identity")], "aged", "opened")[0]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--coffer", default="./coffer")
    p.add_argument("--age", default=None, help="age, with age-keygen beside it")
    p.add_argument("--dir", default=None, help="where to work: the disk that is measured")
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--size", type=int, default=4096, help="MiB of the large file")
    p.add_argument("--files", type=int, default=20000, help="small files, of 4 KiB")
    p.add_argument("--cold", action="store_true", help="drop the host's caches before each run")
    a = p.parse_args()
    work = tempfile.mkdtemp(prefix="bulk-", dir=a.dir)
    try:
        bench = Bench(work, a)
        got = {}
        for _ in range(a.reps):
            for name, ours, theirs in bench.rows():
                ours_s, memory = ours()
                got.setdefault(name, []).append((ours_s, theirs(), memory))
        print("| coffer: compared with | coffer, s | the other, s | ratio | memory, MiB |\n|---|---|---|---|---|")
        for name, runs in got.items():
            ratio = statistics.median(theirs / ours for ours, theirs, _ in runs)
            print(f"| {name} | {statistics.median(r[0] for r in runs):.2f} | {statistics.median(r[1] for r in runs):.2f} | {ratio:.2f} | {max(r[2] for r in runs):.0f} |")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
