package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/cofferfs/coffer/fs"
)

// A daemon takes orders on a second abstract socket, from its own user and root: one JSON document each way.

const (
	orderTimeout = 10 * time.Second // to send or read an order
	maxOrder     = 4096             // bytes
)

const (
	orderFreeze = "freeze"
	orderThaw   = "thaw"
)

// order is what a daemon is asked to do.
type order struct {
	Do      string        `json:"do"`
	Timeout time.Duration `json:"timeout,omitempty"` // of a freeze
}

// orderReply says how it went. Class tells errors apart that have an exit code of their own.
type orderReply struct {
	Error string `json:"error,omitempty"`
	Code  Code   `json:"code,omitempty"`
}

// controlAddr is the socket of a mount for orders.
func controlAddr(m mountEntry) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@coffer-control-%d:%d", m.major, m.minor)}
}

// serveControl takes orders until the listener is closed, each in a goroutine of its own: a freeze takes as long as the host needs.
func serveControl(l *net.UnixListener, z *fs.Freezer) {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		go func() {
			takeOrder(c, z)
			_ = c.Close()
		}()
	}
}

func takeOrder(c *net.UnixConn, z *fs.Freezer) {
	uid, err := peerUID(c)
	if err != nil {
		return
	}
	reply := orderReply{Error: "only the user who mounted it and root may do that", Code: exitPermission}
	if uid == uint32(os.Geteuid()) || uid == 0 {
		var o order
		_ = c.SetReadDeadline(time.Now().Add(orderTimeout))
		if err = json.NewDecoder(io.LimitReader(c, maxOrder)).Decode(&o); err == nil {
			err = o.do(z)
		}
		reply = orderReply{}
		if err != nil {
			reply = orderReply{Error: err.Error(), Code: orderCode(err)}
		}
	}
	// Nobody is there to be told when this fails: whoever asked has gone.
	_ = c.SetWriteDeadline(time.Now().Add(orderTimeout))
	_ = json.NewEncoder(c).Encode(reply)
}

func (o order) do(z *fs.Freezer) error {
	switch o.Do {
	case orderFreeze:
		return z.Freeze(o.Timeout)
	case orderThaw:
		return z.Thaw()
	}
	return fmt.Errorf("the daemon knows no order %q", o.Do)
}

func orderCode(err error) Code {
	if errors.Is(err, fs.ErrFrozen) || errors.Is(err, fs.ErrNotFrozen) {
		return exitBusy
	}
	var e *exitError
	if errors.As(classify(err), &e) {
		return e.code
	}
	return exitOther
}

// give has the daemon of a mount do something.
func give(m mountEntry, o order, hint string) error {
	conn, err := net.DialTimeout("unix", controlAddr(m).Name, orderTimeout)
	if err != nil {
		return failf(exitDaemon, "run it where the daemon runs (not in another container)", "the daemon of %s does not answer: %w", m.mountpoint, err)
	}
	defer func() { _ = conn.Close() }()
	c := conn.(*net.UnixConn)
	uid, err := peerUID(c)
	if err != nil {
		return err
	}
	if uid != m.owner && uid != 0 {
		return failf(exitPermission, "", "user %d answers for a mount of user %d", uid, m.owner)
	}
	var r orderReply
	if err = json.NewEncoder(c).Encode(o); err == nil {
		err = json.NewDecoder(io.LimitReader(c, maxOrder)).Decode(&r)
	}
	switch {
	case err != nil:
		return failf(exitDaemon, "", "the daemon of %s: %w", m.mountpoint, err)
	case r.Error != "":
		return failf(r.Code, hint, "%s: %s", m.mountpoint, r.Error)
	}
	return nil
}
