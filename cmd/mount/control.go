package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferfs/coffer/fs"
)

// A daemon takes orders on a second abstract socket, from its own user and root: one JSON document each way;
// while it verifies it sends what it finds before.

const (
	orderTimeout = 10 * time.Second // to send or read an order
	maxOrder     = 4096             // bytes
)

const (
	orderFreeze = "freeze"
	orderThaw   = "thaw"
	orderVerify = "verify"
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
func controlAddr(m mountEntry) *net.UnixAddr { return socketAddr("control", m) }

// controller carries out orders.
type controller struct {
	stack  *stack
	ctx    context.Context // of orders that take long; done when the vault is about to be closed
	orders sync.WaitGroup  // that are carried out, and whoever takes them: no other begins once it is over
	checks atomic.Int32    // that run
}

// start takes orders until the listener is closed, each in a goroutine of its own: a freeze takes as long as the host needs.
func (o *controller) start(l *net.UnixListener) {
	o.orders.Go(func() {
		acceptAll(l, func(c *net.UnixConn) {
			o.orders.Go(func() {
				defer context.AfterFunc(o.ctx, func() { _ = c.Close() })() // nobody waits for who says nothing, or reads nothing
				o.take(c)
				_ = c.Close()
			})
		})
	})
}

func (o *controller) take(c *net.UnixConn) {
	uid, err := peerUID(c)
	if err != nil {
		return
	}
	reply := orderReply{Error: "only the user who mounted it and root may do that", Code: exitPermission}
	if own := uid == uint32(os.Geteuid()); own || uid == 0 {
		var x order
		_ = c.SetReadDeadline(time.Now().Add(orderTimeout))
		if err = json.NewDecoder(io.LimitReader(c, maxOrder)).Decode(&x); err == nil {
			err = o.do(c, x, own)
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

// do carries out an order; own tells whether it is that of the daemon's user.
func (o *controller) do(c *net.UnixConn, x order, own bool) error {
	switch {
	case x.Do == orderFreeze:
		return o.stack.freezer.Freeze(x.Timeout)
	case x.Do == orderThaw:
		return o.stack.freezer.Thaw()
	case x.Do == orderVerify && !own:
		return failf(exitPermission, "", "what it says names files: only the user who mounted it may do that")
	case x.Do == orderVerify:
		return o.verify(c)
	}
	return fmt.Errorf("the daemon knows no order %q", x.Do)
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
	c, err := sendOrder(m, o)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	var r orderReply
	if err := json.NewDecoder(io.LimitReader(c, maxOrder)).Decode(&r); err != nil {
		return failf(exitDaemon, "", "the daemon of %s: %w", m.mountpoint, err)
	}
	return r.failed(m, hint)
}

// failed is the error that a daemon answered.
func (r *orderReply) failed(m mountEntry, hint string) error {
	if r.Error == "" {
		return nil
	}
	return failf(r.Code, hint, "%s: %s", m.mountpoint, r.Error)
}

// sendOrder gives an order to the daemon of a mount, which answers on the connection. The caller closes it.
func sendOrder(m mountEntry, o order) (*net.UnixConn, error) {
	c, err := dialDaemon(m, controlAddr(m), orderTimeout)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(c).Encode(o); err != nil {
		_ = c.Close()
		return nil, failf(exitDaemon, "", "the daemon of %s: %w", m.mountpoint, err)
	}
	return c, nil
}
