package fs

import (
	"errors"
	"testing"
	"time"

	"github.com/cofferfs/coffer/internal/event"
)

// A freeze whose time runs out while another one takes its place does not end that.
func TestFreezeOutlivesTheOneBefore(t *testing.T) {
	s := benchStack(t)
	z := NewFreezer(s, NewWatch(s.FS, nil), nil)
	z.mu.Lock()
	err := z.freeze(time.Millisecond)
	time.Sleep(50 * time.Millisecond) // its time is over, and who ends it waits for mu
	err = errors.Join(err, z.thaw(), z.freeze(time.Hour))
	z.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if err := z.Thaw(); err != nil {
		t.Error(err)
	}
}

// A freeze ends by itself.
func TestFreezeEnds(t *testing.T) {
	s := benchStack(t)
	ended := make(chan event.Event, 1)
	z := NewFreezer(s, NewWatch(s.FS, nil), func(e event.Event) { ended <- e })
	if err := z.Freeze(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if e := <-ended; e.Kind != event.Info {
		t.Errorf("%+v", e)
	}
	if err := z.Thaw(); !errors.Is(err, ErrNotFrozen) {
		t.Error(err)
	}
}
