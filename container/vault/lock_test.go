package vault

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

func inUse(t *testing.T, err error) *InUseError {
	t.Helper()
	wantErr(t, err, ErrInUse)
	var e *InUseError
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *InUseError", err)
	}
	return e
}

func TestOneWriter(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{Mountpoint: "/mnt/a\nb"})
	for _, ro := range []bool{false, true} {
		_, err := tryOpen(t, path, OpenOptions{ReadOnly: ro, ForceUnlock: true}) // force is about notes only
		e := inUse(t, err)
		host, _ := os.Hostname()
		if h := e.Holder; h.PID != os.Getpid() || h.Host != host || h.Mountpoint != "/mnt/a\nb" || time.Since(h.Since).Abs() > time.Minute || e.Remote {
			t.Errorf("holder %+v", e)
		}
		if !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || strings.Contains(err.Error(), "\n") {
			t.Errorf("message %q", err)
		}
	}
	closeVault(t, v)
	if note := read(t, coffer(path, lockName)); len(note) == 0 || strings.Trim(string(note), "\x00") != "" { // its room is kept
		t.Errorf("note %q is left", note)
	}
	closeVault(t, open(t, path, OpenOptions{}))
}

func TestReadersShare(t *testing.T) {
	path, _ := newVault(t)
	a := open(t, path, OpenOptions{ReadOnly: true})
	b := open(t, path, OpenOptions{ReadOnly: true})
	_, err := tryOpen(t, path, OpenOptions{})
	if e := inUse(t, err); e.Holder.PID != 0 || !strings.Contains(e.Reason, "reading") {
		t.Errorf("holder %+v", e)
	}
	closeVault(t, a)
	_, err = tryOpen(t, path, OpenOptions{})
	wantErr(t, err, ErrInUse)
	closeVault(t, b)
	closeVault(t, open(t, path, OpenOptions{}))
}

func TestNotes(t *testing.T) {
	note := func(h Holder) string {
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	torn := func(h Holder, n int) string { return note(h)[:len(note(h))-n] }
	here := Holder{Host: "renamed", BootID: bootID(), PID: 1, Mountpoint: "/m"}
	other := note(Holder{Host: "elsewhere.example", BootID: "other boot", PID: 1, Mountpoint: "/m"})
	for _, c := range []struct {
		name, note string
		free       bool
	}{
		{"none", "", true},
		{"zeros", strings.Repeat("\x00", 200), true},
		{"this boot", note(Holder{Host: "renamed", BootID: bootID(), PID: 1}), true},
		{"another host", other, false},
		{"this boot, torn", torn(here, 20), true},
		{"this boot, torn, an older one behind", torn(here, 40) + other[60:], true},
		{"this boot, torn in it", `{"host":"renamed","boot_id":"` + bootID(), false},
		{"another host, torn", torn(Holder{Host: "elsewhere.example", BootID: "other boot", PID: 1}, 20), false},
		{"another host, padded", other + "\x00\x00", false},
		{"not a note", "{\"host\":", false},
		{"long", strings.Repeat("x", 100000), false},
		{"localhost", note(Holder{Host: "localhost", BootID: "other boot", PID: 1}), false},
		{"nameless", note(Holder{BootID: "other boot", PID: 1}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := newVault(t)
			for _, ro := range []bool{true, false} {
				write(t, coffer(path, lockName), []byte(c.note))
				v, err := tryOpen(t, path, OpenOptions{ReadOnly: ro})
				if c.free {
					if err != nil {
						t.Fatal(err)
					}
				} else {
					e := inUse(t, err)
					if !e.Remote || c.note == other && e.Holder.Host != "elsewhere.example" {
						t.Errorf("%+v", e)
					}
					if string(read(t, coffer(path, lockName))) != c.note {
						t.Error("the note was changed")
					}
					v = open(t, path, OpenOptions{ReadOnly: ro, ForceUnlock: true})
				}
				closeVault(t, v)
			}
		})
	}
	// A name that is not everybody's is believed across a reboot.
	named := thisHost(Holder{Host: host, BootID: "other boot"})
	if everybodys := host == "localhost" || host == "(none)" || host == "localhost.localdomain"; named == everybodys {
		t.Errorf("host %q after a reboot: %v", host, named)
	}
}

// noteFile is a lock file that can only be read.
type noteFile struct {
	disk.File
	*bytes.Reader
}

func (f noteFile) ReadAt(p []byte, off int64) (int, error) { return f.Reader.ReadAt(p, off) }

// FuzzNote: whatever stands in a lock, the vault is free or in use, by a holder that can be shown in one line.
func FuzzNote(f *testing.F) {
	ours, err := json.Marshal(Holder{Host: "renamed", BootID: bootID(), PID: 1, Mountpoint: "/mnt", Since: time.Unix(1e9, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ours)
	f.Add(ours[:len(ours)-20])
	f.Add([]byte{})
	f.Add(make([]byte, 50))
	f.Add([]byte(`{"host":"elsewhere","boot_id":"other","pid":7,"mountpoint":"a\nb","since":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, note []byte) {
		l := &lockFile{f: noteFile{Reader: bytes.NewReader(note)}}
		h, some, err := l.readNote()
		if !some && (err != nil || h != (Holder{})) || err != nil && h != (Holder{Host: h.Host, BootID: h.BootID}) { // of a torn one
			t.Fatalf("%+v, %v, %v", h, some, err)
		}
		switch err := l.checkNote(false); {
		case err == nil:
			if some && !thisHost(h) {
				t.Fatalf("%+v does not keep anybody out", h)
			}
		case !errors.Is(err, ErrInUse):
			t.Fatalf("untyped error %v", err)
		case len(err.Error()) > 4000 || strings.ContainsAny(err.Error(), "\n\x00\x1b"):
			t.Fatalf("message %q", err)
		}
		if err := l.checkNote(true); err != nil {
			t.Fatal(err)
		}
	})
}

// A process that is killed leaves its note and its session, and no lock.
func TestKilledHolder(t *testing.T) {
	path, _ := newVault(t)
	cmd := exec.Command("/proc/self/exe", "test-hold", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var seq uint64
	if _, serr := fmt.Sscanf(line, "held %d <nil>", &seq); err != nil || serr != nil {
		t.Fatalf("the holder said %q: %v", line, err)
	}
	_, err = tryOpen(t, path, OpenOptions{})
	if e := inUse(t, err); e.Holder.PID != cmd.Process.Pid || e.Holder.Mountpoint != "/mnt/held" {
		t.Errorf("holder %+v", e)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it says
	v := open(t, path, OpenOptions{})
	if !v.UncleanSeq(seq) || next(t, v) <= seq {
		t.Error("the killed session is not known")
	}
	closeVault(t, v)
}

// A lock on a file that lost its name keeps nobody out, so such a file is not locked.
func TestReplacedLockFile(t *testing.T) {
	path, _ := newVault(t)
	root, dir, err := openDirs(path, disk.OpenRoot)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	defer dir.Close()
	l, err := openLock(path, dir, disk.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	remove(t, coffer(path, lockName))
	write(t, coffer(path, lockName), nil)
	if err := l.takeWriter(dir, "", false); !errors.Is(err, unix.ESTALE) {
		t.Errorf("error %v", err)
	}
	remove(t, coffer(path, lockName))
	if err := unix.Mkfifo(coffer(path, lockName), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLock(path, dir, disk.ReadWrite); err == nil {
		t.Error("a FIFO was taken for the lock")
	}
	remove(t, coffer(path, lockName))
	v := open(t, path, OpenOptions{}) // and a missing one is made again
	_, err = tryOpen(t, path, OpenOptions{})
	wantErr(t, err, ErrInUse)
	closeVault(t, v)
}
