package disk

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// As calls fn with the file system identity of another user and group, so that what fn makes on the host is theirs from its first moment; -1
// keeps the process's own. All that the process may do besides it still may. fn must not hand its calls to other goroutines. Where the
// process may not take the identity, fn runs with its own, and whoever relies on the owner checks it.
func As(uid, gid int, fn func() error) error {
	euid, egid := os.Geteuid(), os.Getegid()
	if uid == -1 {
		uid = euid
	}
	if gid == -1 {
		gid = egid
	}
	if uid == euid && gid == egid {
		return fn()
	}
	// Identity and capabilities are a thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if unix.Capget(&head, &caps[0]) != nil {
		return fn()
	}
	// The way back to the process's own ids is always open. The calls tell no error; what they did not do, fn's caller sees.
	defer func() {
		_ = unix.Setfsuid(euid)
		_ = unix.Setfsgid(egid)
	}()
	_ = unix.Setfsgid(gid)
	_ = unix.Setfsuid(uid)
	// Leaving root as file system identity took the capabilities of the file system out of force.
	if err := unix.Capset(&head, &caps[0]); err != nil {
		return wrap("capset", "", err)
	}
	return fn()
}
