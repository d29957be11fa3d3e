package stream

import (
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container"
)

// Error classes, besides those of package container (ErrAuth, ErrCorrupt, ErrTruncated, ErrTrailing, ErrDigest, ErrVersion, ErrFeature) and the wrong secrets
// of package vault.
var (
	// ErrNotStream: the input does not begin like a sealed stream.
	ErrNotStream = errors.New("not a sealed stream")
	// ErrRecipients: a stream has no key slot, more than maxSlots, or a second passphrase.
	ErrRecipients = errors.New("a stream needs 1 to 32 key slots, one passphrase at most")
	// ErrClosed: the Writer or Reader is closed.
	ErrClosed = errors.New("stream is closed")
)

// Error says at which byte of the stream something is wrong: where the frame or field begins that is not what it must be; where bytes are missing, the one at
// which they end.
type Error struct {
	Offset int64
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("stream: byte %d: %v", e.Offset, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// at puts an error of the segment that begins at byte base to its place in the stream.
func at(base int64, err error) *Error {
	var w *container.WireError
	if errors.As(err, &w) {
		base += int64(w.Offset)
	}
	return &Error{Offset: base, Err: err}
}
