package disk

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ownIDs is the identity of the process. It never changes, and the runtime would ask the kernel each time.
var ownIDs = sync.OnceValues(func() (uid, gid int) { return os.Geteuid(), os.Getegid() })

// As calls fn with the file system identity of another user and group, so that what fn makes on the host is theirs from its first moment; -1
// keeps the process's own. All that the process may do besides it still may. fn must not hand its calls to other goroutines. Where the
// process may not take the identity, fn runs with its own, and whoever relies on the owner checks it.
func As(uid, gid int, fn func() error) error {
	euid, egid := ownIDs()
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
	own := func() { // always allowed, and the calls tell no error
		_ = unix.Setfsuid(euid)
		_ = unix.Setfsgid(egid)
	}
	defer own()
	_ = unix.Setfsgid(gid)
	_ = unix.Setfsuid(uid)
	// Leaving root as file system identity took the capabilities of the file system out of force.
	if unix.Capset(&head, &caps[0]) != nil {
		own()
	}
	return fn()
}
