package disktest

import (
	"fmt"
)

// Call is a host call that is about to be made. Name is that in the directory, or under which the file or directory was opened.
type Call struct {
	N    int // calls before it since SetFault
	Op   string
	Name string
	Off  int64
	Len  int
}

// Fault decides whether a call fails, and with what. It is called with the Memory's lock held and must not call it. Close never fails.
type Fault func(Call) error

// Short is the error of a read or write that fails halfway: Keep bytes are done before Err. Of other calls it is Err.
type Short struct {
	Keep int
	Err  error
}

func (s *Short) Error() string { return fmt.Sprintf("after %d bytes: %v", s.Keep, s.Err) }

// FailCall fails call number n, counted from 0.
func FailCall(n int, err error) Fault {
	return func(c Call) error {
		if c.N == n {
			return err
		}
		return nil
	}
}

// FailFrom fails call number n and all after it, as if the disk were gone.
func FailFrom(n int, err error) Fault {
	return func(c Call) error {
		if c.N >= n {
			return err
		}
		return nil
	}
}

// FailSyncs fails each Datasync and Sync of what was opened under name.
func FailSyncs(name string, err error) Fault {
	return func(c Call) error {
		if c.Name == name && (c.Op == "fdatasync" || c.Op == "fsync") {
			return err
		}
		return nil
	}
}

// SetFault puts f in charge of every call from now on and counts them anew; nil lets all through.
func (m *Memory) SetFault(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.calls, m.struck = f, 0, false
}

// Calls is how many calls were made since SetFault, or ever.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Struck reports whether a call failed by the fault since SetFault.
func (m *Memory) Struck() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.struck
}

// SetTrace has fn told of every call, in order, with the Memory's lock held. nil ends that.
func (m *Memory) SetTrace(fn func(op, name string, off int64, n int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trace = fn
}

// SetSpace lets n more bytes of data be stored, by the page; writes beyond that are short with ENOSPC.
func (m *Memory) SetSpace(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.capacity = m.s.used + n/pageSize
}

// call counts a call and answers how it is to fail.
func (m *Memory) call(op, name string, off int64, n int) error {
	c := Call{N: m.calls, Op: op, Name: name, Off: off, Len: n}
	m.calls++
	if m.trace != nil {
		m.trace(op, name, off, n)
	}
	if m.fault == nil {
		return nil
	}
	err := m.fault(c)
	if err != nil {
		m.struck = true
	}
	return err
}
