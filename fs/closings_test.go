package fs

import (
	"sync/atomic"
	"testing"
)

// Who waits while others begin and end, again and again from none, sees none running that began before.
func TestClosings(t *testing.T) {
	var c closings
	c.none.L = &c.mu
	c.wait() // for none
	for range 1000 {
		var ended atomic.Int32
		c.begin(func() { ended.Add(1) })
		c.begin(func() { c.begin(func() { ended.Add(1) }) })
		c.wait()
		if n := ended.Load(); n != 2 {
			t.Fatalf("%d of 2 have ended", n)
		}
		other := make(chan struct{})
		go func() { c.wait(); close(other) }()
		c.begin(func() {})
		c.wait()
		<-other
	}
}
