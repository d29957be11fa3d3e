package integration

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Times that were set are the file's for good: no flush, close or remount changes them.
func TestUtimes(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		at, mt := unix.Timespec{Sec: 1_000_000_001, Nsec: 123_456_789}, unix.Timespec{Sec: 1_234_567_890, Nsec: 987_654_321}
		check := func(when, path string) {
			t.Helper()
			if st := lstat(t, path); st.Mtim != mt || st.Atim != at {
				t.Errorf("%s: atime %v, mtime %v", when, st.Atim, st.Mtim)
			}
		}
		path := m.path("file")
		f, err := os.Create(path)
		m.must(err)
		_, err = f.Write(patterned(100_000))
		m.must(err)
		m.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, mt}, 0))
		check("at once", path)
		m.must(f.Sync())
		check("after fsync", path)
		m.must(f.Close())
		check("after close", path)
		m.must(os.Chmod(path, 0o600))
		m.must(os.Rename(path, path+"2"))
		path += "2"
		m.must(os.Mkdir(m.path("dir"), 0o755))
		m.must(os.Symlink("x", m.path("link")))
		for _, name := range []string{"dir", "link"} {
			m.must(unix.UtimesNanoAt(unix.AT_FDCWD, m.path(name), []unix.Timespec{at, mt}, unix.AT_SYMLINK_NOFOLLOW))
		}
		m.remount()
		check("after remount", path)
		check("directory", m.path("dir"))
		check("symlink", m.path("link"))

		// Only one of both, and now.
		m.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
		st := lstat(t, path)
		if st.Atim != at || time.Since(time.Unix(st.Mtim.Unix())).Abs() > time.Minute {
			t.Errorf("UTIME_NOW: atime %v, mtime %v", st.Atim, st.Mtim)
		}
	})
}

// fileClock is the clock that stamps files. It may be behind by a tick, or by more where the machine is busy.
func fileClock() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		panic(err)
	}
	return time.Unix(ts.Unix())
}

// tick waits until that has gone on.
func tick(d time.Duration) {
	for end := fileClock().Add(d); fileClock().Before(end); time.Sleep(time.Millisecond) {
	}
}

// The mtime that stat says after a write is the one that stays.
func TestMtimeOfWrites(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		old := unix.Timespec{Sec: 1000}
		path := m.write("file", []byte("x"))
		empty := m.write("empty", nil)
		m.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{old, old}, 0))
		tick(20 * time.Millisecond)
		start := fileClock()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		m.must(err)
		_, err = f.WriteAt([]byte("y"), 5000)
		m.must(err)
		wrote := fstat(t, f).Mtim
		if time.Unix(wrote.Unix()).Before(start) {
			t.Errorf("mtime %v is older than the write", wrote)
		}
		tick(30 * time.Millisecond)
		m.must(f.Close())
		was := lstat(t, empty).Mtim
		if st := lstat(t, path); st.Mtim != wrote {
			t.Errorf("after close: %v, want %v", st.Mtim, wrote)
		}
		m.remount()
		if st := lstat(t, path); st.Mtim != wrote {
			t.Errorf("after remount: %v, want %v", st.Mtim, wrote)
		}
		if st := lstat(t, empty); st.Mtim != was {
			t.Errorf("empty file after remount: %v, want %v", st.Mtim, was)
		}
	})
}

// A change of an open file changes its ctime at once, though the host hears of it later.
func TestCtimeOfOpenFile(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("file", []byte("x"))
		for what, change := range map[string]func(f *os.File) error{
			"truncate": func(f *os.File) error { return f.Truncate(100) },
			"write":    func(f *os.File) error { _, err := f.WriteAt([]byte("y"), 0); return err },
		} {
			before := lstat(t, path).Ctim
			tick(20 * time.Millisecond)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			m.must(err)
			m.must(change(f))
			open := lstat(t, path).Ctim
			m.must(f.Close())
			closed := lstat(t, path).Ctim
			if open.Nano() <= before.Nano() || closed.Nano() < open.Nano() {
				t.Errorf("%s: ctime %v, open %v, closed %v", what, before, open, closed)
			}
		}
	})
}

// The ctime that stat showed is there after the kernel forgot the file, and after the next mount, though the host's moved when data, the journal's content and
// the mtime were brought to it. One that something else moves on the host counts.
func TestCtimeStays(t *testing.T) {
	m := mount(t, options{})
	m.write("new", []byte("x"))
	m.write("large", make([]byte, 300000))
	for _, name := range []string{"over", "renamed", "mode", "linked", "foreign", "attr"} {
		m.write(name, make([]byte, 100000))
	}
	m.remount()
	f, err := os.OpenFile(m.path("over"), os.O_RDWR, 0)
	m.must(err)
	for i := range 10 { // over stored data: by the journal
		_, err = f.WriteAt([]byte("y"), int64(i)*9000)
		m.must(err)
		m.must(f.Sync())
	}
	m.must(f.Close())
	tick(20 * time.Millisecond)
	m.must(os.Rename(m.path("renamed"), m.path("moved")))
	m.must(os.Chmod(m.path("mode"), 0o640))
	m.must(os.Link(m.path("linked"), m.path("link")))
	m.must(unix.Setxattr(m.path("attr"), "user.x", []byte("1"), 0))
	was := map[string]unix.Timespec{}
	for i := range 5 { // within one tick of the clock the kernel has nothing to send
		name := fmt.Sprint("fresh", i)
		f, err := os.Create(m.path(name))
		m.must(err)
		_, err = f.Write([]byte("data"))
		m.must(err)
		was[name] = lstat(t, m.path(name)).Ctim
		m.must(f.Close())
	}
	for _, name := range []string{"new", "large", "over", "moved", "mode", "linked", "foreign", "attr"} {
		was[name] = lstat(t, m.path(name)).Ctim
	}
	check := func(when string) {
		t.Helper()
		for name, ctime := range was {
			if now := lstat(t, m.path(name)).Ctim; now != ctime {
				t.Errorf("%s: %s: ctime %v, was %v", when, name, now, ctime)
			}
		}
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err == nil {
		check("forgotten")
	}
	m.remount()
	check("mounted again")
	m.remount()
	check("mounted a third time")
	for _, host := range m.host() {
		m.must(os.Chmod(host, 0o640)) // the daemon does not know
	}
	m.remount()
	for name, ctime := range was {
		if now := lstat(t, m.path(name)).Ctim; now.Nano() <= ctime.Nano() {
			t.Errorf("%s was changed on the host, and shows the old ctime %v", name, now)
		}
	}
}

// The ctime of an open file is that of its last change, and not that of the hand-over of its data to the host, which nobody sees. tar says else that the file
// changed while it was read.
func TestCtimeOfHandOver(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		m.write("old", patterned(200_000))
		m.remount()
		for _, name := range []string{"new", "old"} {
			path := m.path(name)
			f := m.open(name, os.O_RDWR|os.O_CREATE)
			stays := func(what string) unix.Timespec {
				t.Helper()
				was := lstat(t, path).Ctim
				tick(20 * time.Millisecond)
				m.must(m.cache.FlushAll())
				m.must(m.engine.Checkpoint())
				if now := statxCtime(t, path); now != was {
					t.Errorf("%s, %s: ctime %v became %v", name, what, was, now)
				}
				return was
			}
			last := stays("opened")
			for _, c := range []struct {
				what   string
				change func() error
			}{
				{"chown to who has it", func() error { return f.Chown(os.Getuid(), os.Getgid()) }},
				{"write", func() error { _, err := f.WriteAt([]byte("data"), 100_000); return err }},
				{"write and chmod", func() error { _, err := f.WriteAt([]byte("more"), 0); return errors.Join(err, f.Chmod(0o640)) }},
				{"utimes", func() error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(2, 0)) }},
				{"truncate", func() error { return f.Truncate(50_000) }},
				{"link", func() error { return os.Link(path, path+"2") }},
				{"setxattr", func() error { return unix.Setxattr(path, "user.x", []byte("1"), 0) }},
			} {
				m.must(c.change())
				now := stays(c.what)
				if now.Nano() <= last.Nano() {
					t.Errorf("%s, %s: ctime %v, was %v", name, c.what, now, last)
				}
				last = now
			}
			m.must(f.Close())
			if now := statxCtime(t, path); now != last {
				t.Errorf("%s, closed: ctime %v became %v", name, last, now)
			}
		}
	})
}

// statxCtime has the kernel ask the daemon.
func statxCtime(t *testing.T, path string) unix.Timespec {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
		t.Fatal(err)
	}
	return unix.Timespec{Sec: st.Ctime.Sec, Nsec: int64(st.Ctime.Nsec)}
}

func TestModeAndOwner(t *testing.T) {
	needRoot(t)
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("file", []byte("x"))
		for _, mode := range []uint32{0o600, 0o444, 0o6755, 0o7777, 0} {
			m.must(unix.Chmod(path, mode))
			if st := lstat(t, path); st.Mode&0o7777 != mode {
				t.Errorf("chmod %o: %o", mode, st.Mode)
			}
		}
		m.must(unix.Chmod(path, 0o640))
		m.must(os.Chown(path, 12, 34))
		m.must(os.Chown(path, -1, 56))
		m.must(os.Mkdir(m.path("dir"), 0o755))
		m.must(unix.Chmod(m.path("dir"), 0o1777))
		m.must(os.Chown(m.path("dir"), 78, 90))
		m.must(os.Symlink("x", m.path("link")))
		m.must(os.Lchown(m.path("link"), 7, 8))
		for range 2 {
			for name, want := range map[string][3]uint32{"file": {0o640, 12, 56}, "dir": {0o1777, 78, 90}, "link": {0o777, 7, 8}} {
				if st := lstat(t, m.path(name)); [3]uint32{st.Mode & 0o7777, st.Uid, st.Gid} != want {
					t.Errorf("%s: %o %d %d, want %v", name, st.Mode, st.Uid, st.Gid, want)
				}
			}
			m.remount()
		}
	})
}

// Who creates owns; a setgid directory gives its group.
func TestOwnership(t *testing.T) {
	needRoot(t)
	m := mount(t, options{allowOther: true})
	m.must(os.Mkdir(m.path("open"), 0o777))
	m.must(unix.Chmod(m.path("open"), 0o777))
	m.must(runChild(t, nobody, "create", m.path("open", "file")))
	if st := lstat(t, m.path("open", "file")); st.Uid != nobody || st.Gid != nobody || st.Mode&0o7777 != 0o6777 {
		t.Errorf("%d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	m.must(os.Chown(m.path("open"), 0, 77))
	m.must(unix.Chmod(m.path("open"), 0o2777))
	m.must(os.Mkdir(m.path("open", "sub"), 0o755))
	m.must(os.WriteFile(m.path("open", "root"), nil, 0o600))
	m.must(os.Symlink("x", m.path("open", "link")))
	for name, mode := range map[string]uint32{"sub": 0o2755, "root": 0o600, "link": 0o777} {
		if st := lstat(t, m.path("open", name)); st.Gid != 77 || st.Uid != 0 || st.Mode&0o7777 != mode {
			t.Errorf("%s: %d:%d %o", name, st.Uid, st.Gid, st.Mode)
		}
	}
	m.must(os.WriteFile(m.path("secret"), []byte("x"), 0o600))
	if err := runChild(t, nobody, "read", m.path("secret")); err == nil {
		t.Error("another user reads a file of mode 0600")
	}
}

// With HANDLE_KILLPRIV_V2 clearing suid and sgid is our part.
// modeOf asks for nothing but the mode, as stat(1) may: the kernel answers what it has where it does not know it to be old.
func modeOf(t testing.TB, path string) uint32 {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE, &st); err != nil {
		t.Fatalf("statx %s: %v", path, err)
	}
	return uint32(st.Mode) & 0o7777
}

func TestKillPriv(t *testing.T) {
	needRoot(t)
	for _, o := range []options{{allowOther: true}, {allowOther: true, writeThrough: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			path := m.write("file", []byte("data"))
			for _, c := range []struct {
				what       string
				mode, want uint32
				do         func() error
			}{
				{"write", 0o6777, 0o777, func() error { return runChild(t, nobody, "append", path, "more") }},
				{"write without group execute", 0o6767, 0o2767, func() error { return runChild(t, nobody, "append", path, "more") }},
				{"direct write", 0o6777, 0o777, func() error { return runChild(t, nobody, "direct", path) }},
				{"direct write without execute", 0o6666, 0o2666, func() error { return runChild(t, nobody, "direct", path) }},
				{"truncate", 0o6777, 0o777, func() error { return runChild(t, nobody, "truncate", path) }},
				{"open with O_TRUNC", 0o6777, 0o777, func() error { return runChild(t, nobody, "opentrunc", path) }},
				{"chown by root", 0o6777, 0o777, func() error { return os.Chown(path, 1, 1) }},
				{"chgrp by root", 0o6745, 0o2745, func() error { return os.Chown(path, -1, 2) }},
				{"write by root", 0o6777, 0o6777, func() error { return runChild(t, 0, "append", path, "more") }},
				{"read", 0o6777, 0o6777, func() error { return runChild(t, nobody, "read", path) }},
			} {
				m.must(unix.Chmod(path, c.mode))
				m.must(c.do())
				if mode := modeOf(t, path); mode != c.want {
					t.Errorf("%s: %o became %o, want %o", c.what, c.mode, mode, c.want)
				}
			}
			m.must(os.Mkdir(m.path("dir"), 0o755))
			m.must(unix.Chmod(m.path("dir"), 0o6755))
			m.must(os.Chown(m.path("dir"), 1, 1))
			if st := lstat(t, m.path("dir")); st.Mode&0o7777 != 0o6755 {
				t.Errorf("chown of a directory left mode %o", st.Mode)
			}
			m.must(unix.Chmod(path, 0o6777))
			m.remount()
			if st := lstat(t, path); st.Mode&0o7777 != 0o6777 {
				t.Errorf("flush or remount left mode %o", st.Mode)
			}
		})
	}
}

func TestStatfs(t *testing.T) {
	m := mount(t, options{})
	var got, want unix.Statfs_t
	m.must(unix.Statfs(m.dir, &got))
	m.must(unix.Statfs(m.vault, &want))
	if got.Blocks != want.Blocks || got.Bsize != want.Bsize || got.Namelen != 255 || got.Files != want.Files {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMountFlags(t *testing.T) {
	needRoot(t)
	m := mount(t, options{words: []string{"noatime,noexec", "nodiratime", "fsname=a name"}})
	var st unix.Statfs_t
	m.must(unix.Statfs(m.dir, &st))
	for what, bit := range map[string]int64{
		"noatime": unix.ST_NOATIME, "noexec": unix.ST_NOEXEC, "nosuid": unix.ST_NOSUID, "nodev": unix.ST_NODEV, "nodiratime": unix.ST_NODIRATIME,
	} {
		if st.Flags&bit == 0 {
			t.Errorf("%s is not in force", what)
		}
	}
}

// A hole punched behind the end changes the times, as on the host's filesystems, though not the content.
func TestPunchBehindEnd(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("file", []byte("data"))
		old := time.Unix(1000, 0)
		m.must(os.Chtimes(path, old, old))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		m.must(err)
		m.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 4096))
		m.must(f.Close())
		m.remount()
		if st := lstat(t, path); st.Mtim.Sec == old.Unix() || st.Size != 4 {
			t.Errorf("mtime %d, size %d", st.Mtim.Sec, st.Size)
		}
		m.want(path, []byte("data"))
	})
}

// access(2) answers root as on any filesystem, whoever checks: root may everything, but not run what nobody may run.
func TestAccess(t *testing.T) {
	for _, words := range [][]string{nil, {"default_permissions"}} {
		m := mount(t, options{words: words})
		m.write("f", nil)
		m.must(os.Mkdir(m.path("d"), 0))
		for mode, runs := range map[uint32]error{0: unix.EACCES, 0o644: unix.EACCES, 0o010: nil, 0o755: nil} {
			m.must(unix.Chmod(m.path("f"), mode))
			for mask, want := range map[uint32]error{unix.F_OK: nil, unix.R_OK | unix.W_OK: nil, unix.X_OK: runs} {
				if os.Geteuid() != 0 && mask != unix.F_OK {
					continue
				}
				if err := unix.Access(m.path("f"), mask); err != want {
					t.Errorf("%v: mode %o, access %o: %v, want %v", words, mode, mask, err, want)
				}
			}
		}
		if os.Geteuid() == 0 {
			m.must(unix.Access(m.path("d"), unix.X_OK))
		}
		if err := unix.Access(m.path("none"), unix.F_OK); err != unix.ENOENT {
			t.Errorf("access of nothing: %v", err)
		}
	}
}

// A change of nothing but the ctime reaches the host, and a rename leaves the mtime alone, though the kernel sends both times each time.
func TestTimesThatStand(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		path := m.write("f", patterned(5000))
		was := lstat(t, path)
		tick(50 * time.Millisecond)
		m.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, was.Mtim}, 0))
		m.remount()
		touched := lstat(t, path)
		if touched.Mtim != was.Mtim {
			t.Errorf("mtime %v, want %v", touched.Mtim, was.Mtim)
		}
		if touched.Ctim.Nano() < was.Ctim.Nano()+int64(20*time.Millisecond) {
			t.Errorf("ctime %v before utimensat, %v after it", was.Ctim, touched.Ctim)
		}
		tick(50 * time.Millisecond)
		m.must(os.Rename(path, m.path("g")))
		m.remount()
		moved := lstat(t, m.path("g"))
		if moved.Mtim != was.Mtim {
			t.Errorf("mtime %v after a rename, want %v", moved.Mtim, was.Mtim)
		}
		if moved.Ctim.Nano() < touched.Ctim.Nano()+int64(20*time.Millisecond) {
			t.Errorf("ctime %v before a rename, %v after it", touched.Ctim, moved.Ctim)
		}
	})
}
