package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// Holder is the note in .coffer/lock: who has the vault. It is information only, written by whoever held the lock; the lock
// itself is the kernel's.
type Holder struct {
	Host       string    `json:"host"`
	BootID     string    `json:"boot_id"`
	PID        int       `json:"pid"`
	Mountpoint string    `json:"mountpoint"`
	Since      time.Time `json:"since"`
}

// InUseError is what ErrInUse comes as. Holder is zero where no note was left, as by a mount for reading only.
type InUseError struct {
	Holder Holder
	Reason string // what stands in the way
	Remote bool   // only a note of another host does: OpenOptions.ForceUnlock ignores it
}

func (e *InUseError) Error() string {
	s := ErrInUse.Error() + ": " + e.Reason
	if e.Holder.PID != 0 {
		at := ""
		if e.Holder.Mountpoint != "" {
			at = fmt.Sprintf("mounted at %.256q ", e.Holder.Mountpoint)
		}
		s += fmt.Sprintf(" (host %.64q, pid %d, %ssince %s)", e.Holder.Host, e.Holder.PID, at, e.Holder.Since.Format(time.RFC3339))
	}
	return s
}

func (e *InUseError) Unwrap() error { return ErrInUse }

// Bytes of .coffer/lock that carry locks.
const (
	sessionByte = 0 // held for writing by the writer, shared by readers, for as long as the vault is open
	configByte  = 1 // held for writing while config and config.bak are replaced
)

const maxNote = 4096

// lockFile is an open .coffer/lock. The kernel's lock belongs to the descriptor fd: it ends with it, a crash included, and is
// no other descriptor's, whatever this process opens and closes (which is why it is an OFD lock and no POSIX one). Reading
// and writing goes through f like all other host I/O.
type lockFile struct {
	f     disk.File
	fd    int  // -1: the vault has no path, and no lock but the note
	noted bool // the note is ours
}

func (l *lockFile) close() {
	l.f.Close()
	if l.fd >= 0 {
		_ = unix.Close(l.fd) // nothing was written through it
	}
}

// openLock opens the lock file at path, making it when it is missing and is to be written. f and fd are the same file: what is put in its place
// between the two opens is found.
func openLock(path string, dir disk.Dir, a disk.Access) (*lockFile, error) {
	f, err := dir.Open(lockName, a)
	if errors.Is(err, fs.ErrNotExist) && a == disk.ReadWrite {
		f, err = dir.Create(lockName, fileMode)
		if errors.Is(err, fs.ErrExist) { // another process came first
			f, err = dir.Open(lockName, a)
		}
	}
	if err != nil {
		return nil, err
	}
	if path == "" {
		return &lockFile{f: f, fd: -1}, nil
	}
	flags := unix.O_RDWR
	if a == disk.ReadOnly {
		flags = unix.O_RDONLY
	}
	name := filepath.Join(path, cofferDir, lockName)
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: lockName, Err: err}
	}
	l := &lockFile{f: f, fd: fd}
	if err := l.check(dir); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// check fails unless f, fd and the name are one file. It runs again once the lock is held: a lock on a file that has lost its
// name keeps nobody out.
func (l *lockFile) check(dir disk.Dir) error {
	if l.fd < 0 {
		return nil
	}
	var a, b, c unix.Stat_t
	err := l.f.Stat(&a)
	if err == nil {
		err = unix.Fstat(l.fd, &b)
	}
	if err == nil {
		err = dir.Stat(lockName, &c)
	}
	if err == nil && (a.Dev != b.Dev || a.Ino != b.Ino || a.Dev != c.Dev || a.Ino != c.Ino) {
		err = &fs.PathError{Op: "lock", Path: lockName, Err: unix.ESTALE}
	}
	return err
}

// lock takes one byte without waiting; typ is F_WRLCK or F_RDLCK.
func (l *lockFile) lock(at int64, typ int16) error {
	if l.fd < 0 {
		return nil
	}
	lk := unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: at, Len: 1}
	for {
		err := unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_SETLK, &lk)
		if err != unix.EINTR {
			return err
		}
	}
}

// shared tells whether readers hold the session byte. What the note says then is a leftover.
func (l *lockFile) shared() bool {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: sessionByte, Len: 1}
	return unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_GETLK, &lk) == nil && lk.Type == unix.F_RDLCK
}

func held(err error) bool { return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) }

// lockWriter takes the vault for writing and leaves a note. A note of another host, or one that cannot be read, keeps it out
// unless force is set; a note of this host is a leftover, since its lock is gone.
func lockWriter(path string, dir disk.Dir, mountpoint string, force bool) (*lockFile, error) {
	l, err := openLock(path, dir, disk.ReadWrite)
	if err != nil {
		return nil, fmt.Errorf("vault: lock: %w", err)
	}
	if err := l.takeWriter(dir, mountpoint, force); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lockFile) takeWriter(dir disk.Dir, mountpoint string, force bool) error {
	if err := l.lock(sessionByte, unix.F_WRLCK); err != nil {
		if !held(err) {
			return fmt.Errorf("vault: lock: %w", &fs.PathError{Op: "lock", Path: lockName, Err: err})
		}
		if l.shared() {
			return &InUseError{Reason: "it is mounted for reading"}
		}
		holder, _, _ := l.readNote() // for the message: none while the holder is about to write it
		return &InUseError{Holder: holder, Reason: "it is mounted"}
	}
	if err := l.check(dir); err != nil {
		return fmt.Errorf("vault: lock: %w", err)
	}
	if err := l.checkNote(force); err != nil {
		return err
	}
	if err := l.writeNote(mountpoint); err != nil {
		return fmt.Errorf("vault: lock: %w", err)
	}
	return nil
}

// lockReader keeps writers out while the vault is open for reading, with a shared lock, which needs no write permission and
// works on read-only hosts. Where the host has no locks, or the lock file is missing, there is only the note to go by: a
// reader writes nothing at all. The result is nil without a lock file.
func lockReader(path string, dir disk.Dir, force bool) (*lockFile, error) {
	l, err := openLock(path, dir, disk.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("vault: lock: %w", err)
	}
	err = l.lock(sessionByte, unix.F_RDLCK)
	switch {
	case held(err):
		holder, _, _ := l.readNote()
		err = &InUseError{Holder: holder, Reason: "it is mounted for writing"}
	default:
		err = l.checkNote(force) // the host may have no locks: the note must do
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// lockConfig takes the right to replace config. It excludes nobody who has the vault mounted: config is read at unlock only.
func lockConfig(path string, dir disk.Dir) (*lockFile, error) {
	l, err := openLock(path, dir, disk.ReadWrite)
	if err != nil {
		return nil, fmt.Errorf("vault: lock config: %w", err)
	}
	if err := l.lock(configByte, unix.F_WRLCK); err != nil {
		l.close()
		if held(err) {
			return nil, &InUseError{Reason: "its config is being changed by another process"}
		}
		return nil, fmt.Errorf("vault: lock config: %w", &fs.PathError{Op: "lock", Path: lockName, Err: err})
	}
	return l, nil
}

// readNote returns the note and whether there is one, and of one that cannot be read whose it is. A file of zeros is what a power cut makes of a note: none.
func (l *lockFile) readNote() (h Holder, some bool, err error) {
	buf := make([]byte, maxNote+1)
	n, err := l.f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, false, err
	}
	text := bytes.Trim(buf[:n], "\x00 \n")
	if len(text) == 0 {
		return h, false, nil
	}
	if n > maxNote {
		return h, true, errTooLarge
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return tornNote(text), true, err
	}
	return h, true, nil
}

// tornNote answers whose note that was of which a power cut left the beginning, where the host and its boot stand; nothing where that cannot be read either.
func tornNote(text []byte) Holder {
	var h Holder
	d := json.NewDecoder(bytes.NewReader(text))
	for _, want := range []any{json.Delim('{'), "host", &h.Host, "boot_id", &h.BootID} {
		got, err := d.Token()
		to, value := want.(*string)
		if s, ok := got.(string); value && ok {
			*to = s
		} else if err != nil || got != want {
			return Holder{}
		}
	}
	return h
}

func (l *lockFile) checkNote(force bool) error {
	h, some, err := l.readNote()
	switch {
	case force:
		return nil
	case some && err != nil && !thisHost(h):
		return &InUseError{Reason: "its lock carries a note that cannot be read", Remote: true}
	case err != nil && !some:
		return fmt.Errorf("vault: lock: %w", err)
	case some && !thisHost(h):
		return &InUseError{Holder: h, Reason: "another host has it", Remote: true}
	}
	return nil
}

// writeNote replaces the note.
func (l *lockFile) writeNote(mountpoint string) error {
	host, _ := os.Hostname()                                  // a host without a name has its boot id
	mountpoint = mountpoint[:min(len(mountpoint), maxNote/8)] // JSON may write a byte as six
	note, err := json.Marshal(Holder{Host: host, BootID: bootID(), PID: os.Getpid(), Mountpoint: mountpoint, Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	l.noted = true
	return l.overwrite(append(note, '\n'))
}

// overwrite puts text and zeros in place of all that the file holds, and makes that durable. The file never gets shorter: on a host that is full the
// next note must find room, or nobody could mount the vault to remove something.
func (l *lockFile) overwrite(text []byte) error {
	var st unix.Stat_t
	if err := l.f.Stat(&st); err != nil {
		return err
	}
	if n := min(st.Size, maxNote) - int64(len(text)); n > 0 {
		text = append(text, make([]byte, n)...)
	}
	if _, err := l.f.WriteAt(text, 0); err != nil {
		return err
	}
	if st.Size > maxNote { // not ours: a forced mount replaces it
		if err := l.f.Truncate(maxNote); err != nil {
			return err
		}
	}
	return l.f.Datasync()
}

// release empties our note, makes that durable and lets go of the lock; it does the last whatever fails. l may be nil.
func (l *lockFile) release() error {
	if l == nil {
		return nil
	}
	defer l.close()
	if !l.noted {
		return nil
	}
	if err := l.overwrite(nil); err != nil {
		return fmt.Errorf("vault: unlock: %w", err)
	}
	return nil
}

// thisHost tells whether a note was written here. A boot id is unique; a name is believed after a reboot too, unless it is
// one that many machines have.
func thisHost(h Holder) bool {
	if id := bootID(); id != "" && h.BootID == id {
		return true
	}
	name, err := os.Hostname()
	if err != nil {
		return false
	}
	switch name {
	case "", "(none)", "localhost", "localhost.localdomain":
		return false
	}
	return h.Host == name
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
