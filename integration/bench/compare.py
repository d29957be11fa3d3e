#!/usr/bin/env python3
"""Measure coffer beside gocryptfs and the bare filesystem, in one run.

    sudo apt install fio gocryptfs git sqlite3      # and fuse3
    go build -o coffer ./cmd/mount
    sudo integration/bench/compare.py --coffer ./coffer --dir /some/disk [--reps 3] [--size 512] [--only write,sqlite]

Needs root, to drop caches. Every repetition runs all systems one after the other, so that a slow moment of the machine hits all of them; the table has
medians, and coffer's ratio to the others (above 1 is better). Everything is made below --dir and removed again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PASSPHRASE = "correct horse battery staple\n"


def sh(*args, **kw):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, **kw).stdout.decode()


class System:
    """One filesystem: a place for the data, and a directory to work in."""

    def __init__(self, base):
        self.store, self.mnt = os.path.join(base, "store"), os.path.join(base, "mnt")
        self.passfile = os.path.join(base, "pass")
        os.makedirs(self.mnt)
        with open(self.passfile, "w") as f:
            f.write(PASSPHRASE)
        self.init()
        self.mount()

    def remount(self):
        self.unmount()
        sh("sync")
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
        self.mount()

    def unmount(self):
        sh("fusermount3", "-u", self.mnt)
        time.sleep(0.3)


class Coffer(System):
    name, program = "coffer", "coffer"

    def init(self):
        sh(Coffer.program, "init", "--passfile", self.passfile, "--kdf-memory", "8", "--kdf-time", "1", "--recovery-file", self.passfile + ".recovery", self.store)

    def mount(self):
        sh(Coffer.program, "mount", "--passfile", self.passfile, self.store, self.mnt, stderr=subprocess.DEVNULL)

    def unmount(self):
        sh(Coffer.program, "umount", self.mnt)


class Gocryptfs(System):
    name = "gocryptfs"

    def init(self):
        os.makedirs(self.store)
        sh("gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", self.passfile, self.store)

    def mount(self):
        sh("gocryptfs", "-q", "-passfile", self.passfile, self.store, self.mnt, stderr=subprocess.DEVNULL)


class Native(System):
    name = "native"

    def init(self):
        pass

    def mount(self):
        pass

    def unmount(self):
        pass


def fio(mnt, rw, size, **kw):
    args = ["fio", "--name=x", "--output-format=json", "--ioengine=psync", f"--directory={mnt}", "--filename=fio", f"--rw={rw}", f"--size={size}M"]
    args += [f"--{k}={v}" for k, v in kw.items()]
    job = json.loads(sh(*args))["jobs"][0]
    return job["write" if "write" in rw else "read"]


def workloads(size, seconds, source):
    """Each row: name, unit, whether more is better, whether the mount is fresh and caches are cold, function of a directory."""
    mib = 1 << 20
    rows = []

    def row(name, unit, more, cold=False):
        return lambda fn: rows.append((name, unit, more, cold, fn))

    timed = {"runtime": seconds, "time_based": 1}
    def new(d):
        if os.path.exists(f"{d}/fio"):
            os.remove(f"{d}/fio")
        return fio(d, "write", size, bs="1M", end_fsync=1)["bw_bytes"] / mib

    row("write 1M + fsync", "MiB/s", True)(new)
    row("overwrite 1M + fsync", "MiB/s", True)(lambda d: fio(d, "write", size, bs="1M", end_fsync=1, overwrite=1)["bw_bytes"] / mib)
    row("read 1M, cold", "MiB/s", True, True)(lambda d: fio(d, "read", size, bs="1M")["bw_bytes"] / mib)
    row("read 1M again", "MiB/s", True)(lambda d: fio(d, "read", size, bs="1M")["bw_bytes"] / mib)
    row("random read 4K, cold", "IOPS", True, True)(lambda d: fio(d, "randread", size, bs="4k", **timed)["iops"])
    row("random write 4K", "IOPS", True)(lambda d: fio(d, "randwrite", size, bs="4k", **timed)["iops"])
    row("random write 64K", "IOPS", True)(lambda d: fio(d, "randwrite", size, bs="64k", **timed)["iops"])
    row("random write 4K, fdatasync each", "IOPS", True)(lambda d: fio(d, "randwrite", size, bs="4k", fdatasync=1, **timed)["iops"])

    def clocked(fn):
        def run(d):
            begin = time.monotonic()
            fn(d)
            return time.monotonic() - begin
        return run

    def small(d):
        os.makedirs(f"{d}/small", exist_ok=True)
        data = os.urandom(4096)
        for i in range(3000):
            with open(f"{d}/small/{i}", "wb") as f:
                f.write(data)

    def read_small(d):
        for i in range(3000):
            with open(f"{d}/small/{i}", "rb") as f:
                f.read()

    row("create 3000 files of 4K", "s", False)(clocked(small))
    row("read them, cold", "s", False, True)(clocked(read_small))
    row("remove them", "s", False)(clocked(lambda d: shutil.rmtree(f"{d}/small")))
    row("untar a source tree", "s", False)(clocked(lambda d: sh("tar", "-xf", source, "-C", d)))
    row("grep -r, warm", "s", False)(clocked(lambda d: subprocess.run(["grep", "-rc", "no such words", f"{d}/tree"], stdout=subprocess.DEVNULL)))
    row("git init and add", "s", False)(clocked(lambda d: (sh("git", "init", "-q", f"{d}/tree"), sh("git", "-C", f"{d}/tree", "add", "."))))
    row("git status, cold", "s", False, True)(clocked(lambda d: sh("git", "-C", f"{d}/tree", "status", "--short")))
    row("rm -r of it", "s", False)(clocked(lambda d: shutil.rmtree(f"{d}/tree")))

    def sqlite(mode):
        def run(d):
            path = f"{d}/db-{mode}"
            setup = f"PRAGMA journal_mode={mode};PRAGMA synchronous=FULL;CREATE TABLE t(a,b);"
            body = "".join(f"INSERT INTO t VALUES({i},'{'x' * 100}');" for i in range(300))
            sh("sqlite3", path, input=setup.encode())
            begin = time.monotonic()
            sh("sqlite3", path, input=(f"PRAGMA synchronous=FULL;" + body).encode())
            spent = time.monotonic() - begin
            os.remove(path)
            return 300 / spent
        return run

    row("sqlite, one-row transactions, DELETE", "/s", True)(sqlite("DELETE"))
    row("sqlite, one-row transactions, WAL", "/s", True)(sqlite("WAL"))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--coffer", default="coffer")
    p.add_argument("--dir", default=None, help="where to work: the disk that is measured")
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--size", type=int, default=512, help="MiB of the large file")
    p.add_argument("--seconds", type=int, default=5, help="of each random workload")
    p.add_argument("--only", default="", help="words of the rows to run, with commas")
    a = p.parse_args()
    if os.geteuid() != 0:
        sys.exit("run it as root: caches are dropped between steps")
    Coffer.program = os.path.abspath(a.coffer) if os.path.sep in a.coffer else a.coffer
    work = tempfile.mkdtemp(prefix="compare-", dir=a.dir)
    systems = []
    try:
        tree = os.path.join(work, "tree")
        shutil.copytree(os.path.join(sh("go", "env", "GOROOT").strip(), "src", "cmd", "compile"), tree, symlinks=True)
        source = os.path.join(work, "tree.tar")
        sh("tar", "-cf", source, "-C", work, "tree")
        for s in (Coffer, Gocryptfs, Native):
            systems.append(s(os.path.join(work, s.name)))
        rows = workloads(a.size, a.seconds, source)
        wanted = [w for w in a.only.split(",") if w]
        results = {r[0]: {s.name: [] for s in systems} for r in rows}
        for rep in range(a.reps):
            for name, _, _, cold, fn in rows:
                if wanted and not any(w in name for w in wanted):
                    continue
                for s in systems:
                    if cold:
                        s.remount()
                    results[name][s.name].append(fn(s.mnt))
                print(f"{rep + 1}/{a.reps} {name}", file=sys.stderr)
        print("| workload | unit | " + " | ".join(s.name for s in systems) + " | to gocryptfs | to native |")
        print("|---" * (4 + len(systems)) + "|")
        for name, unit, more, _, _ in rows:
            got = {k: statistics.median(v) for k, v in results[name].items() if v}
            if not got:
                continue
            ratio = lambda other: got["coffer"] / got[other] if more else got[other] / got["coffer"]
            cells = [f"{got[s.name]:.3g}" for s in systems]
            print(f"| {name} | {unit} | " + " | ".join(cells) + f" | {ratio('gocryptfs'):.2f} | {ratio('native'):.2f} |")
    finally:
        for s in systems:
            try:
                s.unmount()
            except subprocess.CalledProcessError:
                print(f"{s.mnt} is still mounted", file=sys.stderr)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
