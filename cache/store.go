package cache

import (
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
)

// store is what the cache needs of a container. *container.File is one; tests bring another that counts and fails. The contracts are those
// of container.File; the ones the cache builds on: reads see a frame's old or new bytes, never a mixture; after an error of WriteFrames or SetSize the
// call may be repeated; nothing is stored at or beyond Size, and all there reads as zeros.
type store interface {
	ID() keys.ObjectID
	Geometry() *container.Geometry
	ReadOnly() bool
	Size() int64
	ReadAt(dst []byte, off int64) error
	WriteFrames(size int64, ws []container.SegmentWrite) error
	SetSize(size int64) error
	Discard(off, n int64) error
	Allocate(off, n int64) error
	NextData(off int64) (int64, bool, error)
	NextHole(off, limit int64) (int64, error)
	Dirty() bool
	Flush() error
	Sync() error
	Abandon()
	Close() error
}
