package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// The daemon of a mount listens on two abstract sockets, one for orders (control.go) and one for who asks how it does (status.go). Each end looks at who
// the other one is.

// Their names have the mount's device number, which the kernel gives to another mount as soon as this one is gone, perhaps before its daemon has noticed: on a
// host that hangs it may never. So they also have what is mounted, lest a daemon stand in the way of the mount of another vault, or take its orders.
const (
	namePatience = 5 * time.Second
	namePoll     = 5 * time.Millisecond
)

// socketAddr is the socket of a mount for what use says; the leading @ makes it abstract.
func socketAddr(use string, m mountEntry) *net.UnixAddr {
	source := sha256.Sum256([]byte(m.source))
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@coffer-%s-%d:%d-%x", use, m.major, m.minor, source[:8])}
}

// listen opens a socket, and waits a little for who has its name and is about to give it up.
func listen(addr *net.UnixAddr) (*net.UnixListener, error) {
	for end := time.Now().Add(namePatience); ; time.Sleep(namePoll) {
		l, err := net.ListenUnix("unix", addr)
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}

// acceptAll calls take for each connection, one after the other, until the listener is closed.
func acceptAll(l *net.UnixListener, take func(c *net.UnixConn)) {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		take(c)
	}
}

// dialDaemon connects to a socket of the daemon of a mount. The caller closes it.
func dialDaemon(m mountEntry, addr *net.UnixAddr, timeout time.Duration) (*net.UnixConn, error) {
	conn, err := net.DialTimeout("unix", addr.Name, timeout)
	if err != nil {
		return nil, failf(exitDaemon, "run it where the daemon runs (not in another container)", "the daemon of %s does not answer: %w", m.mountpoint, err)
	}
	c := conn.(*net.UnixConn)
	uid, err := peerUID(c)
	if err == nil && uid != m.owner && uid != 0 {
		err = failf(exitPermission, "", "user %d answers for a mount of user %d", uid, m.owner)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// peerUID is the user of the process at the other end: who connected, or who listened.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
