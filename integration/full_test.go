package integration

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitRoom waits until the host has so many bytes. The kernel tells the daemon of a file's last close after close(2) has returned, and until then the file
// has its room.
func (m *mounted) awaitRoom(want uint64) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var st unix.Statfs_t
		m.must(unix.Statfs(m.vault, &st))
		if st.Bavail*uint64(st.Bsize) >= want {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("%d bytes are free, want %d", st.Bavail*uint64(st.Bsize), want)
		}
	}
}

// A full host: the error comes no later than with close, what was complete stays so, and deleting makes room again.
func TestFullHost(t *testing.T) {
	test := func(t *testing.T, m *mounted) {
		data := patterned(3 << 20)
		kept := m.write("kept", data)
		for range 3 {
			big := m.path("big")
			err := os.WriteFile(big, patterned(16<<20), 0o644)
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("16 MiB on 8: %v", err)
			}
			m.want(kept, data)
			m.must(os.Remove(big))
			m.awaitRoom(2 << 20)
			after := m.write("after", data[:1<<20])
			m.want(after, data[:1<<20])
			m.must(os.Remove(after))
		}
		// Over it, too.
		if err := os.WriteFile(m.path("big"), patterned(16<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("16 MiB on 8: %v", err)
		}
		m.must(os.Rename(kept, m.path("big")))
		m.remount()
		m.want(m.path("big"), data)
	}
	for _, o := range []options{{wantErrors: true}, {writeThrough: true, wantErrors: true}} {
		t.Run(o.String(), func(t *testing.T) { m := mount(t, o); m.onSmallHost("8m", func() { test(t, m) }) })
	}
}
