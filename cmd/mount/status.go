package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A daemon tells its state on an abstract unix socket, which needs no directory, leaves nothing behind and is found by the mount's device
// number alone. Who connects is known from the kernel (SO_PEERCRED), on both ends: the daemon answers its own user and root, the command
// believes the mount's owner and root. Nothing is read from whoever connects; one JSON document is written.

const (
	statusTimeout   = 10 * time.Second // of one answer, on both ends
	maxOpenFiles    = 1000             // of them are listed
	maxStatusAnswer = 16 << 20         // bytes
)

// statusReport is the state of a mount. The names of the JSON fields are stable. Paths are from the root of the mount; control characters
// and bytes that are not UTF-8 are written as \xNN. They are left out where root asks about another user's mount.
type statusReport struct {
	Version       string            `json:"version"`
	Vault         string            `json:"vault"`
	Mountpoint    string            `json:"mountpoint"`
	PID           int               `json:"pid"`
	ReadOnly      bool              `json:"read_only"`
	Started       time.Time         `json:"started"`
	UptimeSeconds int64             `json:"uptime_seconds"`
	QuietSeconds  int64             `json:"quiet_seconds"` // since the last request
	IdleSeconds   int64             `json:"idle_seconds"`  // of --idle, 0 without
	Requests      map[string]uint64 `json:"requests"`
	Errors        map[string]uint64 `json:"errors"`   // requests that were answered with one
	Findings      map[string]uint64 `json:"findings"` // by kind of event
	Panics        uint64            `json:"panics"`
	Cache         cacheStatus       `json:"cache"`
	Frames        framesStatus      `json:"frames"`
	OpenDirs      int               `json:"open_directories"`
	OpenFiles     int               `json:"open_files"`
	Open          []openStatus      `json:"open"` // the first maxOpenFiles, by path
	Events        []recentEvent     `json:"events"`
	PathsHidden   bool              `json:"paths_hidden"`
	Refused       string            `json:"refused,omitempty"` // then nothing else is set
}

type cacheStatus struct {
	Hits     uint64 `json:"hits"`
	Misses   uint64 `json:"misses"`
	Bypassed uint64 `json:"bypassed"`
	Clean    int64  `json:"clean_bytes"`
	Dirty    int64  `json:"dirty_bytes"`
}

type framesStatus struct {
	Opened uint64 `json:"opened"`
	Sealed uint64 `json:"sealed"`
}

type openStatus struct {
	Path    string `json:"path"`
	Handles int    `json:"handles"`
	Writers int    `json:"writers"`
}

// monitor is what a daemon knows of itself while it serves.
type monitor struct {
	job     mountJob
	stack   *stack
	started time.Time
}

// report describes the mount; paths only with paths.
func (m *monitor) report(paths bool) *statusReport {
	recent, kinds := m.stack.record.snapshot()
	files, dirs := m.stack.FS.OpenFiles()
	c, f := m.stack.Cache.Stats(), m.stack.Engine.Stats()
	r := &statusReport{
		Version: programVersion(), Vault: m.job.Vault, Mountpoint: m.job.Mountpoint, PID: os.Getpid(), ReadOnly: m.job.Words.ReadOnly,
		Started: m.started, UptimeSeconds: int64(time.Since(m.started).Seconds()), QuietSeconds: int64(m.stack.watch.Quiet().Seconds()),
		IdleSeconds: int64(m.job.Idle.Seconds()), Requests: m.stack.watch.Requests(), Errors: m.stack.watch.Answers(), Findings: kinds,
		Panics: m.stack.FS.Panics(), Cache: cacheStatus{c.Hits, c.Misses, c.Bypassed, c.Clean, c.Dirty},
		Frames: framesStatus{f.FramesOpened, f.FramesSealed}, OpenDirs: dirs, OpenFiles: len(files), Open: []openStatus{},
		Events: recent, PathsHidden: !paths,
	}
	show := func(path string) string {
		if !paths {
			return ""
		}
		return printable(path)
	}
	for _, o := range files[:min(len(files), maxOpenFiles)] {
		r.Open = append(r.Open, openStatus{show(o.Path), o.Handles, o.Writers})
	}
	for i := range r.Events {
		e := &r.Events[i]
		if e.Path == "" {
			e.Path = m.stack.FS.PathOf(e.Object)
		}
		e.Path = show(e.Path)
	}
	return r
}

// serveStatus answers on the socket of the mount until the listener is closed. One after the other: each takes statusTimeout at most.
func (m *monitor) serveStatus(l *net.UnixListener) {
	acceptAll(l, func(c *net.UnixConn) {
		m.answer(c)
		_ = c.Close()
	})
}

func (m *monitor) answer(c *net.UnixConn) {
	uid, err := peerUID(c)
	if err != nil {
		return
	}
	self := uint32(os.Geteuid())
	r := &statusReport{Refused: "only the user who mounted it and root may ask"}
	if uid == self || uid == 0 {
		r = m.report(uid == self)
	}
	// Nobody is there to be told when this fails: whoever asked has gone.
	_ = c.SetWriteDeadline(time.Now().Add(statusTimeout))
	_ = json.NewEncoder(c).Encode(r)
}

// statusAddr is the socket of a mount for who asks.
func statusAddr(m mountEntry) *net.UnixAddr { return socketAddr("status", m) }

// askStatus asks the daemon of a mount.
func askStatus(m mountEntry) (*statusReport, error) {
	c, err := dialDaemon(m, statusAddr(m), statusTimeout)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetReadDeadline(time.Now().Add(statusTimeout)); err != nil {
		return nil, err
	}
	r := new(statusReport)
	if err := json.NewDecoder(io.LimitReader(c, maxStatusAnswer)).Decode(r); err != nil {
		hint := ""
		if errors.Is(err, os.ErrDeadlineExceeded) {
			hint = "it may be stopped, or wait for the disk of the vault"
		}
		return nil, failf(exitDaemon, hint, "the daemon of %s does not answer: %w", m.mountpoint, err)
	}
	return r, nil
}

// printable writes what no terminal should see, and no JSON can hold, as \xNN.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) {
			for _, c := range []byte(s[i : i+n]) {
				b.WriteString(`\x`)
				b.WriteString(strconv.FormatUint(uint64(c)|0x100, 16)[1:])
			}
			continue
		}
		b.WriteString(s[i : i+n])
	}
	return b.String()
}
