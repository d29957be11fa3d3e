package redo

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/journal"
)

// BenchmarkReplay replays a journal of the default size that is full of small transactions on 200 files; DESIGN wants it within two seconds.
func BenchmarkReplay(b *testing.B) {
	bulk := bytes.Repeat([]byte("x"), 3*block)
	for b.Loop() {
		b.StopTimer()
		root := diskRoot(b)
		c := diskConfig(b, root)
		l := &lab{t: b}
		var all []spot
		for i := range 200 {
			id := keys.RandomObjectID()
			host := l.name(rootSpot, names.File, id, fmt.Sprint(i))
			f, err := root.Create(host, 0o600)
			ok(b, err)
			f.Close()
			all = append(all, rootSpot.child(id, host))
		}
		j, err := journal.New(c.Journal)
		ok(b, err)
		for rng := newRNG(1); j.Used() < journal.DefaultSize-journal.PieceSize; {
			h := all[rng.IntN(len(all))].images(0, block, (1+rng.Int64N(100))*block, block, (200+rng.Int64N(100))*block, block)
			h.Length = 300 * block
			_, err := j.Append(journal.Entry{Head: h.Append(nil), Bulk: [][]byte{bulk}})
			ok(b, err)
		}
		ok(b, j.Sync(j.End()))
		ok(b, j.Close(false))
		b.StartTimer()
		res, err := Replay(c)
		ok(b, err)
		b.SetBytes(res.Log.Bytes)
	}
}
