package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A busy mount is tried again for a moment: a file manager or an indexer often looks in just once.
const (
	unmountTries = 5
	unmountPause = 100 * time.Millisecond
)

// unmountPath takes the mount at path away; EBUSY when something uses it. With lazy it is detached even when
// something still stands in it.
func unmountPath(path string, lazy bool) error {
	if os.Geteuid() != 0 {
		return fusermountUnmount(path, lazy)
	}
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if lazy && errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	return err
}

// fusermountUnmount does it for a normal user, by the set-user-id helper that made the mount.
func fusermountUnmount(path string, lazy bool) error {
	tool, err := fusermountPath()
	if err != nil {
		return failf(exitFUSE, "install it: apt-get install fuse3", "fusermount3 is not installed; unmounting as a normal user needs it")
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	cmd := exec.Command(tool, append(args, "--", path)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // its message is read below
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(out), "resource busy"):
		return unix.EBUSY
	case strings.Contains(string(out), "not permitted"), strings.Contains(string(out), "ermission denied"):
		return unix.EPERM
	}
	return fmt.Errorf("fusermount3: %s", oneLine(string(out)))
}

// unmountBusy unmounts a served mount, trying again for half a second when it is busy.
func unmountBusy(path string) error {
	var err error
	for i := range unmountTries {
		if i > 0 {
			time.Sleep(unmountPause)
		}
		if err = unmountPath(path, false); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}

// busyError says who keeps a mount busy.
func busyError(mountpoint string, dev uint64) error {
	return failf(exitBusy, "end or unmount them, or have them leave it, then try again", "%s is busy: in use by %s", mountpoint, users(mountpoint, dev))
}
