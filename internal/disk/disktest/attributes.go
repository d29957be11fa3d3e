package disktest

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

func testSpecial(t *testing.T, d disk.Dir) {
	kinds := map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK}
	if os.Geteuid() == 0 {
		kinds["char"], kinds["block"] = unix.S_IFCHR, unix.S_IFBLK
	}
	for name, kind := range kinds {
		dev := uint64(0)
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			dev = unix.Mkdev(7, 300)
		}
		err := d.Mknod(name, kind|0o600, dev)
		if dev != 0 && errors.Is(err, syscall.EPERM) {
			t.Logf("no device nodes here: %v", err)
			continue
		}
		ok(t, err)
		var st unix.Stat_t
		ok(t, d.Stat(name, &st))
		if st.Mode&unix.S_IFMT != kind || st.Rdev != dev {
			t.Errorf("%s: mode %o, device %x", name, st.Mode, st.Rdev)
		}
	}
}

var someTimes = [2]unix.Timespec{{Sec: 1000000007, Nsec: 123456789}, {Sec: -5, Nsec: 999999999}}

func sameTimes(t *testing.T, st *unix.Stat_t) {
	t.Helper()
	if st.Atim != someTimes[0] || st.Mtim != someTimes[1] {
		t.Fatalf("times are %v %v, want %v", st.Atim, st.Mtim, someTimes)
	}
}

// owner answers ids that this process may give away.
func owner() (uid, gid int) {
	if os.Geteuid() == 0 {
		return 12345, 54321
	}
	return os.Getuid(), os.Getgid()
}

func testBirthTime(t *testing.T, d disk.Dir) {
	began := time.Now().Add(-10 * time.Second).UnixNano() // the host's clock is coarser
	write(t, d, "f", "x")
	ok(t, d.Symlink("nothing", "l"))
	f, err := d.Open("f", disk.ReadOnly)
	ok(t, err)
	defer f.Close()
	birth, err := f.BirthTime()
	ok(t, err)
	if birth == 0 {
		t.Skip("the host has no birth times")
	}
	if now := time.Now().UnixNano(); birth < began || birth > now {
		t.Errorf("born at %d, between %d and %d", birth, began, now)
	}
	again, err := d.BirthTime("f")
	ok(t, err)
	self, err := d.BirthTimeSelf()
	ok(t, err)
	link, err := d.BirthTime("l")
	ok(t, err)
	if again != birth || self == 0 || self > birth || link < birth {
		t.Errorf("file %d and %d, its directory %d, a link after it %d", birth, again, self, link)
	}
	_, err = d.BirthTime("none")
	fails(t, err, syscall.ENOENT, "none")
}

func testAttributes(t *testing.T, d disk.Dir) {
	uid, gid := owner()
	write(t, d, "f", "")
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	ok(t, d.Symlink("f", "l"))
	var st unix.Stat_t
	for _, name := range []string{"f", "dir", "fifo"} {
		ok(t, d.Chown(name, uid, gid))
		ok(t, d.Chmod(name, 0o751))
		ok(t, d.Utimes(name, &someTimes))
		ok(t, d.Stat(name, &st))
		if st.Mode&0o7777 != 0o751 || int(st.Uid) != uid || int(st.Gid) != gid {
			t.Fatalf("%s: mode %o, owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
		sameTimes(t, &st)
		ok(t, d.Chown(name, -1, -1))
		ok(t, d.Utimes(name, &[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}))
		ok(t, d.Stat(name, &st))
		sameTimes(t, &st)
		fails(t, d.Chmod("none", 0o700), syscall.ENOENT, "none")
		fails(t, d.Chown("none", -1, -1), syscall.ENOENT, "none")
		fails(t, d.Utimes("none", &someTimes), syscall.ENOENT, "none")
	}
	fails(t, d.Chmod("l", 0o600), syscall.EOPNOTSUPP, "l")
	ok(t, d.Chown("l", uid, gid))
	ok(t, d.Utimes("l", &someTimes))
	ok(t, d.Stat("l", &st))
	sameTimes(t, &st)
	ok(t, d.Stat("f", &st))
	if st.Mode&0o7777 != 0o751 {
		t.Fatal("chmod followed a link")
	}

	f, err := d.Open("f", disk.ReadWrite)
	ok(t, err)
	defer f.Close()
	ok(t, f.Chmod(0o4640))
	ok(t, f.Utimes(&[2]unix.Timespec{{Sec: 1}, {Sec: 2}}))
	ok(t, f.Chown(-1, -1))
	ok(t, f.Chmod(0o4640)) // the host's chown clears the set-id bits
	ok(t, d.Stat("f", &st))
	if st.Mode&0o7777 != 0o4640 || st.Atim.Sec != 1 || st.Mtim.Sec != 2 {
		t.Fatalf("mode %o, times %v %v", st.Mode, st.Atim, st.Mtim)
	}
	birth, err := f.BirthTime()
	ok(t, err)
	if birth < 0 {
		t.Fatalf("birth time %d", birth)
	}

	sub, err := d.OpenDir("dir")
	ok(t, err)
	defer sub.Close()
	ok(t, sub.ChownSelf(uid, gid))
	ok(t, sub.ChmodSelf(0o1711))
	ok(t, sub.UtimesSelf(&someTimes))
	ok(t, sub.StatSelf(&st))
	if st.Mode&0o7777 != 0o1711 {
		t.Fatalf("mode %o", st.Mode)
	}
	sameTimes(t, &st)
}

func testPathOnly(t *testing.T, d disk.Dir) {
	uid, gid := owner()
	write(t, d, "file", "x")
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	ok(t, d.Symlink("file", "link"))
	_, err := d.OpenPath("none")
	fails(t, err, syscall.ENOENT, "none")
	for _, name := range []string{"file", "dir", "fifo", "link"} {
		f, err := d.OpenPath(name)
		ok(t, err)
		var before, st unix.Stat_t
		ok(t, d.Stat(name, &before))
		if name == "dir" {
			ok(t, d.Rmdir(name))
		} else {
			ok(t, d.Unlink(name))
		}
		ok(t, f.Stat(&st))
		if st.Ino != before.Ino || st.Mode != before.Mode {
			t.Fatalf("%s: another object", name)
		}
		ok(t, f.Chown(uid, gid))
		if name == "link" {
			fails(t, f.Chmod(0o611), syscall.EOPNOTSUPP, "")
		} else {
			ok(t, f.Chmod(0o611))
		}
		ok(t, f.Utimes(&someTimes))
		ok(t, f.Stat(&st))
		sameTimes(t, &st)
		if name != "link" && st.Mode&0o7777 != 0o611 || int(st.Uid) != uid || int(st.Gid) != gid {
			t.Fatalf("%s: mode %o, owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
		_, err = f.ReadAt(make([]byte, 1), 0)
		fails(t, err, syscall.EBADF, "")
		_, err = f.WriteAt(make([]byte, 1), 0)
		fails(t, err, syscall.EBADF, "")
		fails(t, f.Truncate(0), syscall.EBADF, "")
		fails(t, f.Sync(), syscall.EBADF, "")
		fails(t, f.Datasync(), syscall.EBADF, "")
		_, err = f.BirthTime()
		ok(t, err)
		ok(t, f.Close())
	}
}
