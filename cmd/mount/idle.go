package main

import (
	"log/slog"
	"time"
)

// idler says when a mount has not been used for long enough.
type idler struct {
	after time.Duration        // 0: never
	quiet func() time.Duration // since the last request
	inUse func() bool          // a file or directory is open
}

// wait returns how long to wait before asking again; 0 says that the mount is idle now. A file that is closed later sends a request with
// that, from which the time counts anew.
func (i idler) wait() time.Duration {
	if left := i.after - i.quiet(); left > 0 {
		return left
	}
	if i.inUse() {
		return i.after
	}
	return 0
}

// end unmounts where the mount is idle, and returns after how long to call it again. Whoever came in between keeps it mounted.
func (i idler) end(log *slog.Logger, unmount func() error) time.Duration {
	if left := i.wait(); left > 0 {
		return left
	}
	log.Info("idle, unmounting", "after", i.after)
	if err := unmount(); err != nil {
		log.Info("still mounted, and goes on serving", "err", err)
	}
	return i.after
}
