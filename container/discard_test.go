package container

import (
	"testing"

	"github.com/cofferfs/coffer/container/redo"
)

// BenchmarkDiscardPending discards 20,000 single frames of a file of which 20,000 wait: in the transaction that is being made, and where the applier
// puts two transactions together.
func BenchmarkDiscardPending(b *testing.B) {
	const n = 20_000
	pending := func(f *File) *transaction {
		t := &transaction{f: f, images: map[int64]*image{}}
		for i := range int64(n) {
			m := &image{off: 2 * i * BlockSize, data: []byte{1}}
			f.put(t, m)
			f.overlay[m.off] = m
		}
		return t
	}
	b.Run("forget", func(b *testing.B) {
		for b.Loop() {
			f := &File{overlay: map[int64]*image{}}
			t := pending(f)
			for i := range int64(n) {
				f.forget(t, 2*i*BlockSize, (2*i+1)*BlockSize)
			}
			if len(t.images) > 0 || len(f.overlay) > 0 || t.bytes != 0 {
				b.Fatal("something is left")
			}
		}
	})
	b.Run("apply", func(b *testing.B) {
		for b.Loop() {
			t := pending(&File{overlay: map[int64]*image{}})
			last := &transaction{}
			for i := range int64(n - 1) {
				last.freed = append(last.freed, redo.Range{Off: 2 * i * BlockSize, Len: BlockSize})
			}
			if images, frees, _ := lastImages([]*transaction{t, last}); len(images) != 1 || !frees {
				b.Fatal("the images that are left are others")
			}
		}
	})
}
