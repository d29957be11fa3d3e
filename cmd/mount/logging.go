package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"time"

	"github.com/cofferfs/coffer/internal/event"
)

// logRotateSize is the length in bytes at which a new daemon starts a new default log and keeps one older one.
const logRotateSize = 4 << 20

// Findings beyond burst per window are counted, not logged: a damaged file that is read in a loop must not fill the host.
const (
	eventBurst  = 200
	eventWindow = 10 * time.Second
)

// openLog opens the daemon's log for appending: path, or the default place when it is empty.
func openLog(path string) (*os.File, error) {
	if path != "" {
		path, err := absolute(path)
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, failf(exitOther, "choose another file with --log FILE", "cannot open the log: %w", err)
		}
		return f, nil
	}
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path = filepath.Join(dir, "coffer.log")
	if st, err := os.Stat(path); err == nil && st.Size() > logRotateSize {
		// Daemons that still run go on writing to the older file, which they hold open.
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// stateDir is $XDG_STATE_HOME/coffer or ~/.local/state/coffer. A relative XDG_STATE_HOME is ignored, as its specification says.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "coffer"), nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		u, err := user.Current()
		if err != nil {
			return "", err
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".local", "state", "coffer"), nil
}

func newLogger(w io.Writer, vault string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, nil)).With("vault", vault)
}

// eventLog turns findings of the layers below into log lines.
type eventLog struct {
	log *slog.Logger

	mu      sync.Mutex // guards the fields below
	since   time.Time
	count   int
	dropped int
}

// sink logs one event. It is safe for concurrent use.
func (l *eventLog) sink(e event.Event) {
	dropped, ok := l.admit(time.Now())
	if dropped > 0 {
		l.log.Warn("findings were not logged: too many at once", "count", dropped)
	}
	if !ok {
		return
	}
	attrs := []any{"kind", string(e.Kind)}
	if e.Object != "" {
		attrs = append(attrs, "object", e.Object)
	}
	if e.Offset >= 0 {
		attrs = append(attrs, "offset", e.Offset)
	}
	if e.Err != nil {
		attrs = append(attrs, "err", e.Err)
	}
	msg := e.Note
	if msg == "" {
		msg = string(e.Kind)
	}
	switch e.Kind {
	case event.Failed:
		l.log.Error(msg, attrs...)
	case event.Damage, event.Duplicate, event.Foreign:
		l.log.Warn(msg, attrs...)
	default:
		l.log.Info(msg, attrs...)
	}
}

// admit counts an event against the window; dropped is what an ended window held back.
func (l *eventLog) admit(now time.Time) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= eventWindow {
		dropped = l.dropped
		l.since, l.count, l.dropped = now, 0, 0
	}
	if l.count >= eventBurst {
		l.dropped++
		return dropped, false
	}
	l.count++
	return dropped, true
}
