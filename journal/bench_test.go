package journal

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
)

// benchJournal is one of the default size on the host, all pieces made, whose checkpoints cost nothing.
func benchJournal(b *testing.B) *Journal {
	dir, err := disk.OpenRoot(b.TempDir())
	ok(b, err)
	var j *Journal
	c := testConfig(dir, 0)
	c.Size, c.pieceSize = 0, 0
	ask := make(chan LSN, 1)
	c.Pressed = func(lsn LSN) error {
		select {
		case ask <- lsn:
		default:
		}
		return nil
	}
	j = open(b, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		for lsn := range ask {
			if err := j.Sync(lsn); err != nil {
				b.Error(err)
			}
			j.Recycle(lsn)
		}
	})
	b.Cleanup(func() {
		close(ask)
		wg.Wait()
		ok(b, j.Close(true))
		ok(b, dir.Close())
	})
	fill := make([]byte, 1<<20)
	for range 160 { // once round
		_, err := j.Append(Entry{Bulk: [][]byte{fill}})
		ok(b, err)
	}
	ok(b, j.Sync(j.End()))
	return j
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

func BenchmarkAppendSync(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("4KiB/writers=%d", writers), func(b *testing.B) {
			j := benchJournal(b)
			b.SetBytes(4096)
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					head, bulk := random(160), random(4096)
					for next.Add(1) <= int64(b.N) {
						lsn, err := j.Append(Entry{Head: head, Bulk: [][]byte{bulk}})
						if err == nil {
							err = j.Sync(lsn)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			j := benchJournal(b)
			head, bulk := random(160), random(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := j.Append(Entry{Head: head, Bulk: [][]byte{bulk}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReplay reads a full journal of the default size, verifying, then twice for the caller.
func BenchmarkReplay(b *testing.B) {
	dir, err := disk.OpenRoot(b.TempDir())
	ok(b, err)
	defer dir.Close()
	c := testConfig(dir, 0)
	c.Size, c.pieceSize = 0, 0
	j := open(b, c)
	head, bulk := random(160), random(4096)
	for j.Used() < DefaultSize-PieceSize {
		_, err := j.Append(Entry{Head: head, Bulk: [][]byte{bulk}})
		ok(b, err)
	}
	ok(b, j.Sync(j.End()))
	b.SetBytes(j.Used())
	for b.Loop() {
		r, err := Open(c)
		ok(b, err)
		for range 2 {
			_, err = r.Each(func(*Transaction, func([]byte, int64) error) error { return nil })
			ok(b, err)
		}
		r.Close()
	}
	ok(b, j.Close(true))
}
