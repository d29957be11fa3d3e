package integration

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// What several programs leave of a file that they truncate and write at once is what a remount finds: kernel and daemon agree on its size.
func TestTruncatingWriters(t *testing.T) { bothModes(t, truncatingWriters) }

func truncatingWriters(t *testing.T, m *mounted) {
	const files, writers = 150, 4 // one file in seven differed
	path := func(i int) string { return m.path(strconv.Itoa(i)) }
	for i := range files { // the writers are at each file together
		var all sync.WaitGroup
		start := make(chan struct{})
		for w := range writers {
			all.Go(func() {
				runtime.LockOSThread()
				<-start
				rng := rand.New(rand.NewPCG(uint64(w), uint64(i)))
				for range 3 {
					if err := os.WriteFile(path(i), make([]byte, rng.IntN(20000)), 0o644); err != nil {
						t.Error(err)
					}
				}
			})
		}
		close(start)
		all.Wait()
	}
	sizes := func() (all [files]int64) {
		for i := range all {
			st, err := os.Stat(path(i))
			m.must(err)
			all[i] = st.Size()
		}
		return all
	}
	before := sizes()
	m.remount()
	for i, got := range sizes() {
		if got != before[i] {
			t.Errorf("file %d has %d bytes, and had %d", i, got, before[i])
		}
	}
}
