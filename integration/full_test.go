package integration

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

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
