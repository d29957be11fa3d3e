package container

import (
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container/suite"
)

// Error classes. Every error of this package that speaks of stored bytes wraps one of them.
var (
	// ErrAuth: a tag, pin or HMAC does not match. Bytes were changed, moved or are stale.
	ErrAuth = suite.ErrAuth
	// ErrCorrupt: a CRC or a structure is wrong.
	ErrCorrupt = errors.New("corrupt structure")
	// ErrTruncated: the host file or the wire ends before the structure does.
	ErrTruncated = errors.New("truncated")
	// ErrDigest: a segment digest or leaf does not match its ciphertext.
	ErrDigest = errors.New("digest mismatch")
	// ErrTrailing: bytes follow where a structure ends. It is an ErrCorrupt as well.
	ErrTrailing = fmt.Errorf("%w: trailing bytes", ErrCorrupt)
	// ErrResume: a resume point does not fit the segment that it lies in.
	ErrResume = errors.New("resume point does not fit")
	// ErrNoHeader: there is no container header where one must be.
	ErrNoHeader = errors.New("no container header")
	// ErrKey: the key commitment is another: a container of another vault, or changed parameters.
	ErrKey = errors.New("key commitment mismatch")
	// ErrIdentity: an authentic container stands where another one belongs.
	ErrIdentity = errors.New("wrong object id")
	// ErrVersion: a newer layout than this program knows.
	ErrVersion = errors.New("unknown format version")
	// ErrFeature: an unknown incompatible feature, suite, digest or geometry.
	ErrFeature = errors.New("unknown format feature")
	// ErrSize: host length and plain size contradict each other.
	ErrSize = errors.New("host length does not match the file size")
	// ErrGeometry: no such segment and frame size.
	ErrGeometry = errors.New("no such geometry")
	// ErrTooLarge: beyond the largest file of the geometry (EFBIG).
	ErrTooLarge = errors.New("file too large")
	// ErrReadOnly: the container was opened for reading only.
	ErrReadOnly = errors.New("container is read-only")
	// ErrClosed: the container, engine or pool is closed.
	ErrClosed = errors.New("already closed")
)

// FrameError says which frame failed. Offset is the plain offset of its first byte in the file.
type FrameError struct {
	Segment uint64
	Frame   uint32
	Offset  int64
	Err     error
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("frame %d at byte %d: %v", e.Frame, e.Offset, e.Err)
}

func (e *FrameError) Unwrap() error { return e.Err }

// SegmentError says which segment an operation failed on. Op is "read", "write", "seal" or "open".
type SegmentError struct {
	Op      string
	Segment uint64
	Err     error
}

func (e *SegmentError) Error() string {
	return fmt.Sprintf("container: %s segment %d: %v", e.Op, e.Segment, e.Err)
}

func (e *SegmentError) Unwrap() error { return e.Err }

// WireError says where in the wire form of a segment something is wrong: Offset is the byte from its beginning; where bytes are missing, the one at
// which they end.
type WireError struct {
	Offset int
	Err    error
}

func (e *WireError) Error() string { return fmt.Sprintf("byte %d: %v", e.Offset, e.Err) }

func (e *WireError) Unwrap() error { return e.Err }

// MetaError says which meta block (level 0), tree node (1 to 3) or header (4) failed; everything below it is unreadable.
type MetaError struct {
	Op    string
	Level uint8
	Index uint64
	Err   error
}

func (e *MetaError) Error() string {
	switch e.Level {
	case 0:
		return fmt.Sprintf("container: %s meta block %d: %v", e.Op, e.Index, e.Err)
	case headerLevel:
		return fmt.Sprintf("container: %s header: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("container: %s tree node %d of level %d: %v", e.Op, e.Index, e.Level, e.Err)
}

func (e *MetaError) Unwrap() error { return e.Err }
