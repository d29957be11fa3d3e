package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/event"
)

// status asks as the box's user.
func (b *box) status(mp string) *statusReport {
	b.t.Helper()
	r := new(statusReport)
	if err := json.Unmarshal([]byte(b.ok("", "status", "--json", mp).stdout), r); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// statusOnce is status when it is so, or after a minute: nobody waits for RELEASE, which the kernel sends behind a close.
func (b *box) statusOnce(mp string, so func(r *statusReport) bool) *statusReport {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if r := b.status(mp); so(r) || time.Now().After(end) {
			return r
		}
	}
}

// TestStatus: requests, errors and open files are counted, these by the paths that they have now, and to ask is no request.
func TestStatus(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain", "--idle", "1h")
	if err := os.Mkdir(filepath.Join(mp, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	odd := "odd\n\xff"
	writeFile(t, filepath.Join(mp, "dir", odd), strings.Repeat("content", 10000))
	f, err := os.OpenFile(filepath.Join(mp, "dir", odd), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := os.Open(filepath.Join(mp, "dir"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Rmdir(filepath.Join(mp, "dir")); !errors.Is(err, unix.ENOTEMPTY) {
		t.Fatal(err)
	}

	r := b.statusOnce(mp, func(r *statusReport) bool { return r.Requests["RELEASE"] > 0 }) // of the file that was written
	if r.Vault != v || r.Mountpoint != mp || r.PID != b.daemon(mp) || r.IdleSeconds != 3600 || r.ReadOnly || r.PathsHidden {
		t.Errorf("%+v", r)
	}
	if version := b.ok("", "version").stdout; !strings.HasPrefix(version, "coffer "+r.Version+", ") { // this test's own may be another
		t.Errorf("version %q, the program says %s", r.Version, version)
	}
	for _, op := range []string{"LOOKUP", "MKDIR", "CREATE", "WRITE", "FLUSH", "OPEN", "OPENDIR"} {
		if r.Requests[op] == 0 {
			t.Errorf("no %s in %v", op, r.Requests)
		}
	}
	if r.Errors["ENOTEMPTY"] == 0 || len(r.Events) != 0 || len(r.Findings) != 0 || r.Frames.Sealed == 0 || r.Panics != 0 {
		t.Errorf("errors %v, events %v, findings %v, frames %v, panics %d", r.Errors, r.Events, r.Findings, r.Frames, r.Panics)
	}
	want := openStatus{`/dir/odd\x0a\xff`, 1, 1}
	if r.OpenFiles != 1 || r.OpenDirs != 1 || len(r.Open) != 1 || r.Open[0] != want {
		t.Errorf("open: %d files, %d directories, %v", r.OpenFiles, r.OpenDirs, r.Open)
	}
	before := r.Requests
	r = b.status(mp)
	for op, n := range r.Requests {
		if op != "FLUSH" && n != before[op] { // a process that is started closes its copy of our files
			t.Errorf("asking was a request: %s, %d after %d", op, n, before[op])
		}
	}
	if err := os.Rename(filepath.Join(mp, "dir"), filepath.Join(mp, "moved")); err != nil {
		t.Fatal(err)
	}
	if r = b.status(mp); len(r.Open) != 1 || r.Open[0].Path != `/moved/odd\x0a\xff` {
		t.Errorf("after the directory was renamed: %v", r.Open)
	}
	if err := os.Remove(filepath.Join(mp, "moved", odd)); err != nil {
		t.Fatal(err)
	}
	if r = b.status(mp); len(r.Open) != 1 || r.Open[0].Path != "(deleted)" {
		t.Errorf("after the file was removed: %v", r.Open)
	}
	text := b.ok("", "status", mp).stdout
	for _, want := range []string{"vault         " + v, "unmounts when idle for 1h0m0s", "1 files, 1 directories", "(deleted) (1 handles, 1 may write)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// A file that was synced and is removed, as sqlite3 does it with each rollback journal, is given up at once. That the kernel has to tell a ctime of it
// then fails nowhere.
func TestStatusOfRemoved(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	const files = 20
	for range files {
		f, err := os.Create(filepath.Join(mp, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = f.WriteString("content"); err == nil {
			err = errors.Join(f.Chown(os.Getuid(), os.Getgid()), f.Sync(), f.Close(), os.Remove(f.Name()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := b.status(mp)
	if r.Requests["SETATTR"] < files || len(r.Findings) > 0 || r.Errors["ESTALE"] > 0 {
		t.Errorf("%d SETATTR, findings %v, errors %v, events %v", r.Requests["SETATTR"], r.Findings, r.Errors, r.Events)
	}
}

// What fails is shown with path and offset to the owner, and with neither in the log.
func TestStatusOfDamage(t *testing.T) {
	b := newBox(t)
	b.warnings = []string{"request failed"}
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	writeFile(t, filepath.Join(mp, "telling-name"), strings.Repeat("0123456789abcdef", 16384))
	b.ok("", "umount", mp)
	const plain, host = 81920, 8192 + 81920 // the first group's data begins behind header and meta block
	flipped := false
	err := filepath.WalkDir(v, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == ".coffer" || e.IsDir() {
			if e.Name() == ".coffer" {
				return filepath.SkipDir
			}
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		flipped = true
		_, err = f.WriteAt([]byte("rotten"), host)
		return err
	})
	if err != nil || !flipped {
		t.Fatal(err)
	}

	b.mount(v, "plain")
	f, err := os.OpenFile(filepath.Join(mp, "telling-name"), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	if _, err := f.ReadAt(page, plain); err == nil {
		t.Fatal("a damaged frame was read")
	}
	f.Close()

	r := b.status(mp)
	if r.Errors["EIO"] == 0 || r.Findings["request"] == 0 || len(r.Events) == 0 {
		t.Fatalf("errors %v, findings %v, events %v", r.Errors, r.Findings, r.Events)
	}
	if e := r.Events[0]; e.Kind != "request" || e.What != "READ" || e.Path != "/telling-name" || e.Offset != plain || e.Error != "EIO" {
		t.Errorf("%+v", e)
	}
	if text := b.ok("", "status", mp).stdout; !strings.Contains(text, "request READ /telling-name at byte 81920: EIO") {
		t.Errorf("status says:\n%s", text)
	}
	log := readFile(t, b.path("state/coffer/coffer.log"))
	if !strings.Contains(log, "request failed") || strings.Contains(log, "telling-name") {
		t.Errorf("the log says:\n%s", log)
	}
}

// Who did not mount it gets no answer, root none with paths.
func TestStatusIsPrivate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another user asks")
	}
	cred := userCred()
	needFUSE(t, cred)
	b := newBox(t)
	for d := b.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	v, _ := b.newVault("roots")
	mp := b.mount(v, "plain", "-o", "allow_other")
	other := *b
	other.cred = cred
	other.fails(exitPermission, "only the user who mounted it", "", "status", mp)
	other.fails(exitPermission, "no permission to unmount", "", "umount", mp)
	b.ok("", "umount", mp)

	if err := os.Chown(b.dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	theirs, theirMP := b.path("theirs"), b.path("their-plain")
	// A log of their own: root's is in this box already.
	other.ok(passphrase+"\n", append([]string{"mount", "--create", "--log", b.path("their.log"), theirs, theirMP}, cheap...)...)
	r := b.status(theirMP)
	if !r.PathsHidden || r.Vault != theirs {
		t.Errorf("root is told %+v", r)
	}
	if r := other.status(theirMP); r.PathsHidden {
		t.Errorf("the owner is told %+v", r)
	}
	other.ok("", "umount", theirMP)
}

func TestStatusErrors(t *testing.T) {
	b := newBox(t)
	b.warnings = []string{"unclean", "not closed cleanly"}
	b.fails(exitMountpoint, "does not exist", "", "status", b.path("nowhere"))
	b.fails(exitMountpoint, "nothing is mounted", "", "status", b.dir)
	b.fails(exitMountpoint, "is not a coffer mount", "", "status", "/proc")
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	kill(t, b.daemon(mp))
	b.fails(exitMountpoint, "dead mount", "", "status", mp)
	b.ok("", "umount", mp)
}

// A daemon whose mount is gone has the name of the socket for a moment longer: the next one waits for it.
func TestSocketName(t *testing.T) {
	addr := statusAddr(mountEntry{major: uint32(os.Getpid()), minor: 1}) // of no mount
	first, err := listen(addr)
	noError(t, err)
	gone := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { gone <- first.Close() })
	second, err := listen(addr)
	noError(t, err)
	noError(t, <-gone)
	noError(t, second.Close())
}

// A mount of another vault has sockets of its own, should it get the device number of one whose daemon hangs.
func TestSocketsOfOneNumber(t *testing.T) {
	hung := mountEntry{major: uint32(os.Getpid()), minor: 3, source: "/srv/one"} // of no mount
	next := hung
	next.source = "/srv/two"
	if a, b := statusAddr(hung).Name, statusAddr(next).Name; a == b {
		t.Errorf("both ask at %s", a)
	}
	if a, b := controlAddr(hung).Name, controlAddr(next).Name; a == b {
		t.Errorf("both take orders at %s", a)
	}
}

func TestRecorder(t *testing.T) {
	var r recorder
	for i := range 3 * recentEvents {
		r.sink(event.Event{Kind: event.Damage, Offset: int64(i), Err: unix.EIO})
	}
	recent, kinds := r.snapshot()
	if len(recent) != recentEvents || kinds["damage"] != 3*recentEvents {
		t.Fatalf("%d events, %v", len(recent), kinds)
	}
	for i, e := range recent {
		if want := int64(2*recentEvents + i); e.Offset != want || e.Error == "" {
			t.Fatalf("event %d: %+v, want offset %d", i, e, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"/a b/ü–名": "/a b/ü–名", "a\nb\x1b\x7f": `a\x0ab\x1b\x7f`, "\xff\xc3": `\xff\xc3`, "\u0085\u202e": `\xc2\x85\xe2\x80\xae`, "\ufffd": "\ufffd"} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
