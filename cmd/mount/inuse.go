package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
)

// lockState is who has a vault right now, as .coffer/lock shows it to somebody who does not take it.
type lockState struct {
	Writer bool // a process on this machine holds the lock for writing
	Reader bool // … or shares it for reading
	Holder vault.Holder
}

// peekLock looks at the lock of a vault without taking it. A vault that has none, or does not let us look, is not in use as far
// as can be seen: vault.Open decides.
func peekLock(path string) lockState {
	var s lockState
	f, err := os.OpenFile(filepath.Join(path, ".coffer", "lock"), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return s
	}
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Len: 1}
	if unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk) != nil {
		return s
	}
	s.Writer, s.Reader = lk.Type == unix.F_WRLCK, lk.Type == unix.F_RDLCK
	note, err := io.ReadAll(io.LimitReader(f, 4096))
	if s.Writer && err == nil {
		// A note that is being written is no note yet. Zeros stand behind one that is shorter than that of an earlier mount.
		if json.Unmarshal(bytes.Trim(note, "\x00 \n"), &s.Holder) != nil {
			s.Holder = vault.Holder{}
		}
	}
	return s
}

// shareVault keeps writers of this machine out of a vault until release is called, as a mount for reading does. A vault without a lock file, or on a host without
// locks, is shared with everybody.
func shareVault(path string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(path, ".coffer", "lock"), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return func() {}, nil
	}
	release = func() { f.Close() }
	lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		release()
		return nil, inUse(&vault.InUseError{Holder: peekLock(path).Holder, Reason: "it is mounted for writing"})
	}
	return release, nil
}

// leavingTime is how long a daemon whose mount is gone may need to bring everything to the host before it counts as one that stays.
const leavingTime = 15 * time.Second

// leaving reports whether the holder's mount is gone, so that it will release the vault soon: umount(8), unlike coffer umount, does not wait for that. Its
// note goes a moment before the lock; whoever has just come has none yet, and will have one soon.
func (s *lockState) leaving() bool {
	switch {
	case !s.Writer:
		return false
	case s.Holder.PID == 0:
		return true
	case s.Holder.Mountpoint == "":
		return false
	}
	m, ok, err := mountAt(s.Holder.Mountpoint)
	return err == nil && (!ok || m.fsType != fsType)
}

// checkUnused says that a vault is in use before the passphrase is asked for. Readers share a vault.
func checkUnused(path string, readOnly bool) error {
	s := peekLock(path)
	for end := time.Now().Add(leavingTime); s.leaving() && time.Now().Before(end); s = peekLock(path) {
		time.Sleep(20 * time.Millisecond)
	}
	switch {
	case s.Writer:
		return inUse(&vault.InUseError{Holder: s.Holder, Reason: "it is mounted"})
	case s.Reader && !readOnly:
		return inUse(&vault.InUseError{Reason: "it is mounted for reading"})
	}
	return nil
}

// inUse puts the command that frees the vault into the hint.
func inUse(err *vault.InUseError) error {
	hint := "unmount it there first: coffer umount MOUNTPOINT"
	switch {
	case err.Holder.PID != 0 && err.Holder.Mountpoint == "":
		err.Reason = "it is written to without a mount"
		hint = fmt.Sprintf("wait until process %d has ended: it imports, or repairs", err.Holder.PID)
	case err.Holder.Mountpoint != "":
		hint = "unmount it there first: coffer umount " + quote(err.Holder.Mountpoint)
		if _, seen, e := mountAt(err.Holder.Mountpoint); e == nil && !seen {
			hint = "that mount is not seen from here: where it was just unmounted, wait; where it is detached, or in another mount namespace, end who uses it, then " +
				endDaemon(err.Holder.PID)
		}
	}
	if err.Remote {
		hint = "unmount it on that host first; if that host is surely gone: --force-unlock"
	}
	return &exitError{code: exitInUse, hint: hint, err: err}
}

// endDaemon says how to end the daemon pid, which is another process's number here where the daemon has process ids of its own.
func endDaemon(pid int) string {
	if processName(pid) != "coffer" {
		return "its daemon, where it runs"
	}
	return fmt.Sprintf("its daemon: kill %d", pid)
}

// asInUse finds the error of a vault in use in a chain.
func asInUse(err error) (*vault.InUseError, bool) {
	var e *vault.InUseError
	ok := errors.As(err, &e)
	return e, ok
}
