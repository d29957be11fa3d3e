package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/pflag"
)

// How progress is shown: auto is a bar on a terminal and lines elsewhere.
const (
	progressAuto  = "auto"
	progressPlain = "plain"
	progressJSON  = "json"
	progressNone  = "none"
)

// How often a bar and lines are renewed.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 10 * time.Second
	jsonEvery = time.Second
)

// progressReport is a line of --progress json. The names of its fields are stable.
type progressReport struct {
	Files        int64   `json:"files"` // done
	Bytes        int64   `json:"bytes"`
	FilesTotal   int64   `json:"files_total"` // 0: not known
	BytesTotal   int64   `json:"bytes_total"`
	BytesPerSec  float64 `json:"bytes_per_second"` // since the start
	SecondsSpent float64 `json:"seconds"`
	SecondsLeft  float64 `json:"seconds_left"` // at that rate; 0: not known
	Path         string  `json:"path,omitempty"`
}

func registerProgress(fs *pflag.FlagSet, mode *string) {
	fs.StringVar(mode, "progress", progressAuto, "show how far it is on standard error, as `KIND` says: auto (a bar on a terminal, else lines), plain, json or none")
}

func checkProgress(mode string) error {
	switch mode {
	case progressAuto, progressPlain, progressJSON, progressNone:
		return nil
	}
	return failf(exitUsage, "say auto, plain, json or none", "unknown kind of progress %q", mode)
}

// progress shows how far bulk work is, until stop is called.
type progress struct {
	a      *app
	mode   string
	totals progressReport
	now    func() (files, size int64, path string)
	bar    *progressbar.ProgressBar
	began  time.Time
	quit   chan struct{}
	ended  chan struct{}
}

// showProgress starts to show. files and size are the totals, both 0 where they are not known.
func (a *app) showProgress(mode string, files, size int64, now func() (files, size int64, path string)) *progress {
	p := &progress{a: a, mode: mode, totals: progressReport{FilesTotal: files, BytesTotal: size}, now: now, began: time.Now(), quit: make(chan struct{}), ended: make(chan struct{})}
	every := lineEvery
	switch {
	case mode == progressJSON:
		every = jsonEvery
	case mode == progressAuto && isTerminalOut(a.stderr) && (size > 0 || files == 0):
		every = barEvery
		if size == 0 {
			size = -1 // a spinner
		}
		p.bar = progressbar.NewOptions64(size, progressbar.OptionSetWriter(a.stderr), progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true),
			progressbar.OptionShowTotalBytes(true), progressbar.OptionSetWidth(20), progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetSpinnerChangeInterval(0)) // its own goroutine races with us
	}
	go p.run(every)
	return p
}

func (p *progress) run(every time.Duration) {
	defer close(p.ended)
	if p.mode == progressNone {
		<-p.quit
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
			p.show()
		}
	}
}

// report is the state of now.
func (p *progress) report() progressReport {
	r := p.totals
	r.Files, r.Bytes, r.Path = p.now()
	r.SecondsSpent = time.Since(p.began).Seconds()
	r.BytesPerSec = float64(r.Bytes) / r.SecondsSpent
	if r.Bytes > 0 && r.Bytes < r.BytesTotal {
		r.SecondsLeft = float64(r.BytesTotal-r.Bytes) / r.BytesPerSec
	}
	return r
}

func (p *progress) show() {
	r := p.report()
	switch {
	case p.bar != nil:
		if r.BytesTotal == 0 {
			p.bar.Describe(fmt.Sprintf("%d files, %d MiB", r.Files, r.Bytes>>20))
		} else {
			p.bar.Describe(shorten(oneLine(filepath.Base(r.Path)), 24))
			r.Bytes = min(r.Bytes, r.BytesTotal)
		}
		_ = p.bar.Set64(r.Bytes) // its only errors are those of a terminal that is gone
	case p.mode == progressJSON:
		_ = writeJSONLine(p.a.stderr, r) // nobody is there to tell
	case r.FilesTotal == 0:
		p.a.say("%d files, %d MiB, %.0f MiB/s %s", r.Files, r.Bytes>>20, r.BytesPerSec/(1<<20), oneLine(r.Path))
	default:
		p.a.say("%d of %d files, %d of %d MiB, %.0f MiB/s, %s left: %s", r.Files, r.FilesTotal, r.Bytes>>20, r.BytesTotal>>20, r.BytesPerSec/(1<<20),
			seconds(int64(r.SecondsLeft)), oneLine(r.Path))
	}
}

// stop ends the showing; a last report for programs tells where it ended.
func (p *progress) stop() {
	close(p.quit)
	<-p.ended
	switch {
	case p.bar != nil:
		_ = errors.Join(p.bar.Clear(), p.bar.Exit()) // as above
	case p.mode == progressJSON:
		p.show()
	}
}

func writeJSONLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// shorten cuts text for people to n characters.
func shorten(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:n-1]) + "…"
}
