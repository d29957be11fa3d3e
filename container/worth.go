package container

import (
	"context"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// Worth says how much of a container opens, to choose between two states of one.
type Worth struct {
	Opens    bool   // its header
	Lost     int64  // bytes
	Sequence uint64 // of the header: the later state has the higher one
}

// Worth looks at the container of an object. h stays open.
func (e *Engine) Worth(h disk.File, id keys.ObjectID) Worth {
	var hdr header
	if _, err := e.readHeader(h, id, &hdr); err != nil {
		return Worth{}
	}
	f, err := e.Open(disk.KeepOpen{File: h}, id, OpenOptions{ReadOnly: true, Object: hdr.object})
	if err != nil {
		return Worth{}
	}
	defer func() { _ = f.Close() }()
	got, err := f.Verify(context.Background(), nil, nil)
	if err != nil {
		return Worth{}
	}
	return Worth{Opens: true, Lost: got.LostBytes(), Sequence: hdr.sequence}
}

// Better reports whether w is worth more than o: less of it is lost, or it is later.
func (w Worth) Better(o Worth) bool {
	switch {
	case w.Opens != o.Opens:
		return w.Opens
	case w.Lost != o.Lost:
		return w.Lost < o.Lost
	}
	return w.Sequence > o.Sequence
}
