#!/usr/bin/env python3
"""Measure coffer beside gocryptfs, securefs and the bare filesystem, in one run.

    sudo apt install fuse3 fio git sqlite3 rsync dbench gocryptfs securefs
    go build -o coffer ./cmd/mount
    go build -o loopback ./integration/bench/loopback
    sudo integration/bench/compare.py --coffer ./coffer --loopback ./loopback --dir /some/disk [--reps 3] [--size 512] [--only write,sqlite] [--systems coffer,gocryptfs]

Needs root, to drop caches. Every repetition runs all systems one after the other, so that a slow moment of the machine hits all of them; the table has
medians, and coffer's ratio to the better of gocryptfs and securefs, to the better of two mounts that do nothing (go-fuse's loopback, with and without the
kernel's write-back cache), and to the bare filesystem (above 1 is better). Below it stand what the daemons took:
processor time for each GiB that fio wrote or read in a row, and the most memory. Everything is made below --dir and removed again.
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

    program = ""

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
        self.peak = max(self.peak, self.memory())
        sh("fusermount3", "-u", self.mnt)
        time.sleep(0.3)

    def appear(self):
        """Wait for a mount that somebody else makes."""
        for _ in range(50):
            if os.path.ismount(self.mnt):
                return
            time.sleep(0.1)
        raise OSError(f"{self.name} did not mount")

    peak = 0

    def daemon(self):
        """The process that serves the mount: it was told of the mount point, and is older than its children."""
        for pid in sorted((int(p) for p in os.listdir("/proc") if p.isdigit())):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if os.fsencode(self.mnt) in words and os.path.basename(words[0]).decode() in (self.name, os.path.basename(self.program)):
                return pid
        return None

    def cpu(self):
        """Seconds of processor that the daemon has used."""
        pid = self.daemon()
        if pid is None:
            return 0
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Most resident MiB of the daemon so far."""
        pid = self.daemon()
        if pid is None:
            return 0
        with open(f"/proc/{pid}/status") as f:
            return next((int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM")), 0)


class Coffer(System):
    name, program = "coffer", "coffer"

    def init(self):
        sh(Coffer.program, "init", "--passfile", self.passfile, "--kdf-memory", "8", "--kdf-time", "1", "--recovery-file", self.passfile + ".recovery", self.store)

    def mount(self):
        sh(Coffer.program, "mount", "--passfile", self.passfile, self.store, self.mnt, stderr=subprocess.DEVNULL)

    def unmount(self):
        self.peak = max(self.peak, self.memory())
        sh(Coffer.program, "umount", self.mnt)


class Loopback(System):
    name, program, flags = "loopback", "loopback", ()

    def init(self):
        os.makedirs(self.store)

    def mount(self):
        subprocess.Popen([Loopback.program, *self.flags, self.store, self.mnt])
        self.appear()


class LoopbackWriteback(Loopback):
    name, flags = "loopback-wb", ("-writeback",)


class Gocryptfs(System):
    name = "gocryptfs"

    def init(self):
        os.makedirs(self.store)
        sh("gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", self.passfile, self.store)

    def mount(self):
        sh("gocryptfs", "-q", "-passfile", self.passfile, self.store, self.mnt, stderr=subprocess.DEVNULL)


class Securefs(System):
    name = "securefs"

    def init(self):
        os.makedirs(self.store)
        sh("securefs", "create", "--pass", PASSPHRASE.strip(), self.store, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def mount(self):
        sh("securefs", "mount", "-b", "--pass", PASSPHRASE.strip(), "--log", self.passfile + ".log", self.store, self.mnt, stderr=subprocess.DEVNULL)
        self.appear()


class Native(System):
    name = "native"

    def init(self):
        pass

    def mount(self):
        pass

    def unmount(self):
        pass


def fio(mnt, rw, size, **kw):
    """Run fio; return its figures, bytes moved included."""
    args = ["fio", "--name=x", "--output-format=json", "--ioengine=psync", "--group_reporting", f"--directory={mnt}", "--filename=fio", f"--rw={rw}", f"--size={size}M"]
    args += [f"--{k}={v}" for k, v in kw.items()]
    job = json.loads(sh(*args))["jobs"][0]
    fio.moved = job["write"]["io_bytes"] + job["read"]["io_bytes"]
    return job["read"] if rw in ("read", "randread", "randrw") else job["write"]


fio.moved = 0


def workloads(size, seconds, source):
    """Each row: name, unit, whether more is better, what is dropped before (cold: all caches; mount: those of the mount), function of a directory."""
    mib = 1 << 20
    rows = []

    def row(name, unit, more, fresh=None):
        return lambda fn: rows.append((name, unit, more, fresh, fn))

    def write(bs, **kw):
        def run(d):
            if os.path.exists(f"{d}/fio"):
                os.remove(f"{d}/fio")
            return fio(d, "write", size, bs=bs, end_fsync=1, **kw)["bw_bytes"] / mib
        return run

    def rate(rw, bs, **kw):
        return lambda d: fio(d, rw, size, bs=bs, runtime=seconds, time_based=1, **kw)["iops"]

    def cold(bs, jobs=1):
        """Each block once, and each job its own part: what comes from the kernel's pages is no cold read."""
        part = size // jobs
        return lambda d: fio(d, "randread", part, bs=bs, runtime=seconds, numjobs=jobs, offset_increment=f"{part}M")["iops"]

    read = lambda d: fio(d, "read", size, bs="1M", invalidate=0)["bw_bytes"] / mib
    row("write 4K + fsync", "MiB/s", True)(write("4k"))
    row("write 128K + fsync", "MiB/s", True)(write("128k"))
    row("write 1M + fsync", "MiB/s", True)(write("1M"))
    row("overwrite 1M + fsync", "MiB/s", True)(lambda d: fio(d, "write", size, bs="1M", end_fsync=1, overwrite=1)["bw_bytes"] / mib)
    row("read 1M, cold", "MiB/s", True, "cold")(read)
    row("read 1M, host's cache warm", "MiB/s", True, "mount")(read)
    row("read 1M again", "MiB/s", True)(read)
    row("random read 4K, cold", "IOPS", True, "cold")(cold("4k"))
    row("random read 4K, 4 jobs, cold", "IOPS", True, "cold")(cold("4k", jobs=4))
    row("random read 16K, cold", "IOPS", True, "cold")(cold("16k"))
    row("random read 64K, 4 jobs, cold", "IOPS", True, "cold")(cold("64k", jobs=4))
    row("random write 4K", "IOPS", True)(rate("randwrite", "4k"))
    row("random write 64K", "IOPS", True)(rate("randwrite", "64k"))
    row("random write 4K, fdatasync each", "IOPS", True)(rate("randwrite", "4k", fdatasync=1))
    row("mixed 70/30 16K, 4 jobs", "IOPS", True)(rate("randrw", "16k", rwmixread=70, numjobs=4))

    def clocked(fn):
        def run(d):
            begin = time.monotonic()
            fn(d)
            return time.monotonic() - begin
        return run

    def small(d):
        os.makedirs(f"{d}/small", exist_ok=True)
        data = os.urandom(4096)
        for i in range(5000):
            with open(f"{d}/small/{i}", "wb") as f:
                f.write(data)

    def read_small(d):
        for i in range(5000):
            with open(f"{d}/small/{i}", "rb") as f:
                f.read()

    def stat_small(d):
        for i in range(5000):
            os.stat(f"{d}/small/{i}")

    def rename_small(d):
        for i in range(5000):
            os.rename(f"{d}/small/{i}", f"{d}/small/renamed-{i}")

    def quiet(*args):
        return clocked(lambda d: subprocess.run([a.replace("%", d) for a in args], stdout=subprocess.DEVNULL, check=args[0] != "grep"))

    row("create 5000 files of 4K", "s", False)(clocked(small))
    row("stat them, cold", "s", False, "cold")(clocked(stat_small))
    row("read them, cold", "s", False, "cold")(clocked(read_small))
    row("read them again", "s", False)(clocked(read_small))
    row("ls -lR, warm", "s", False)(quiet("ls", "-lR", "%/small"))
    row("rename them", "s", False)(clocked(rename_small))
    row("remove them", "s", False)(clocked(lambda d: shutil.rmtree(f"{d}/small")))
    row("untar a source tree", "s", False)(quiet("tar", "-xf", source, "-C", "%"))
    row("grep -r, warm", "s", False)(quiet("grep", "-rc", "no such words", "%/tree"))
    row("tar of it", "s", False)(quiet("tar", "-cf", "/dev/stdout", "-C", "%", "tree"))
    row("cp -a of it", "s", False)(quiet("cp", "-a", "%/tree", "%/copy"))
    row("rsync of it", "s", False)(quiet("rsync", "-a", "%/tree/", "%/synced"))
    row("git init and add", "s", False)(clocked(lambda d: (sh("git", "init", "-q", f"{d}/tree"), sh("git", "-C", f"{d}/tree", "add", "."))))
    row("git status, warm", "s", False)(quiet("git", "-C", "%/tree", "status", "--short"))
    row("git status, cold", "s", False, "cold")(quiet("git", "-C", "%/tree", "status", "--short"))
    row("rm -rf of all", "s", False)(quiet("rm", "-rf", "%/tree", "%/copy", "%/synced"))

    def sqlite(mode):
        commits = 2000

        def run(d):
            path = f"{d}/db-{mode}"
            setup = f"PRAGMA journal_mode={mode};PRAGMA synchronous=FULL;CREATE TABLE t(a,b);"
            body = "".join(f"INSERT INTO t VALUES({i},'{'x' * 100}');" for i in range(commits))
            sh("sqlite3", path, input=setup.encode())
            begin = time.monotonic()
            sh("sqlite3", path, input=(f"PRAGMA synchronous=FULL;" + body).encode())
            spent = time.monotonic() - begin
            os.remove(path)
            return commits / spent
        return run

    def bulk(d):
        rows = 200000
        make = f"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<{rows}) INSERT INTO t SELECT i, hex(randomblob(50)) FROM c;"
        begin = time.monotonic()
        sh("sqlite3", f"{d}/bulk", input=f"CREATE TABLE t(a INTEGER PRIMARY KEY,b);BEGIN;{make}COMMIT;".encode())
        return rows / (time.monotonic() - begin)

    def select(d):
        asked = "".join(f"SELECT length(b) FROM t WHERE a={i * 7919 % 200000 + 1};" for i in range(40000))
        begin = time.monotonic()
        sh("sqlite3", f"{d}/bulk", input=asked.encode())
        spent = time.monotonic() - begin
        os.remove(f"{d}/bulk")
        return 40000 / spent

    row("sqlite, one-row transactions, DELETE", "/s", True)(sqlite("DELETE"))
    row("sqlite, one-row transactions, WAL", "/s", True)(sqlite("WAL"))
    row("sqlite, rows at once", "/s", True)(bulk)
    row("sqlite, random selects", "/s", True)(select)

    def dbench(d):
        out = sh("dbench", "-t", str(max(seconds, 5)), "-D", d, "4", stderr=subprocess.DEVNULL)
        shutil.rmtree(f"{d}/clients", ignore_errors=True)
        return float(next(line.split()[1] for line in out.splitlines() if line.startswith("Throughput")))

    row("dbench 4", "MB/s", True)(dbench)
    return rows


def report(rows, systems, results, costs):
    names = [s.name for s in systems]
    groups = {"best peer": ["gocryptfs", "securefs"], "best loopback": ["loopback", "loopback-wb"], "native": ["native"]}
    groups = {title: [n for n in members if n in names] for title, members in groups.items() if set(members) & set(names)}
    cells = lambda got: " | ".join(f"{got[s.name]:.3g}" if s.name in got else "" for s in systems)
    medians = lambda of: {k: statistics.median(v) for k, v in of.items() if v}
    head = " | ".join(s.name for s in systems)
    print(f"| workload | unit | {head} | {' | '.join('to ' + g for g in groups)} |")
    print("|---" * (2 + len(systems) + len(groups)) + "|")
    for name, unit, more, _, _ in rows:
        got = medians(results[name])
        if not got:
            continue
        best = max if more else min
        ratio = lambda other: f"{got['coffer'] / other if more else other / got['coffer']:.2f}" if other and got["coffer"] else ""
        print(f"| {name} | {unit} | {cells(got)} | {' | '.join(ratio(best(got[m] for m in members)) for members in groups.values())} |")
    print(f"\n| processor | unit | {head} |")
    print("|---" * (2 + len(systems)) + "|")
    for name, *_ in rows:
        if got := medians(costs[name]):
            print(f"| {name} | s/GiB | {cells(got)} |")
    print(f"| most memory | MiB | {cells({s.name: max(s.peak, s.memory()) for s in systems})} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--coffer", default="coffer")
    p.add_argument("--loopback", default="", help="the program in integration/bench/loopback, built: measured, too, where it is given")
    p.add_argument("--dir", default=None, help="where to work: the disk that is measured")
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--size", type=int, default=512, help="MiB of the large file")
    p.add_argument("--seconds", type=int, default=5, help="of each random workload")
    p.add_argument("--systems", default="coffer,gocryptfs,securefs,native", help="with commas; coffer is always there")
    p.add_argument("--only", default="", help="words of the rows to run, with commas")
    a = p.parse_args()
    if os.geteuid() != 0:
        sys.exit("run it as root: caches are dropped between steps")
    for s, program in ((Coffer, a.coffer), (Loopback, a.loopback)):
        s.program = os.path.abspath(program) if os.path.sep in program else program
    work = tempfile.mkdtemp(prefix="compare-", dir=a.dir)
    systems = []
    try:
        tree = os.path.join(work, "tree")
        shutil.copytree(os.path.join(sh("go", "env", "GOROOT").strip(), "src", "cmd", "compile"), tree, symlinks=True)
        source = os.path.join(work, "tree.tar")
        sh("tar", "-cf", source, "-C", work, "tree")
        for s in (Coffer, Gocryptfs, Securefs, Loopback, LoopbackWriteback, Native):
            if s is Coffer or s.name in a.systems.split(",") or issubclass(s, Loopback) and a.loopback:
                systems.append(s(os.path.join(work, s.name)))
        rows = workloads(a.size, a.seconds, source)
        wanted = [w for w in a.only.split(",") if w]
        results = {r[0]: {s.name: [] for s in systems} for r in rows}
        costs = {r[0]: {s.name: [] for s in systems} for r in rows}
        for rep in range(a.reps):
            for name, _, _, fresh, fn in rows:
                if wanted and not any(w in name for w in wanted):
                    continue
                for s in systems:
                    if fresh == "cold":
                        s.remount()
                    elif fresh:
                        s.unmount()
                        s.mount()
                    os.sync()  # nobody pays for the row before
                    fio.moved, before = 0, s.cpu()
                    results[name][s.name].append(fn(s.mnt))
                    if fio.moved:
                        costs[name][s.name].append((s.cpu() - before) / (fio.moved / (1 << 30)))
                print(f"{rep + 1}/{a.reps} {name}", file=sys.stderr)
        report(rows, systems, results, costs)
    finally:
        for s in systems:
            try:
                s.unmount()
            except subprocess.CalledProcessError:
                print(f"{s.mnt} is still mounted", file=sys.stderr)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
