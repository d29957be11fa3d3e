package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cofferfs/coffer/container/check"
)

// checking shows on stderr how far a check is: a line that is written over on a terminal, else one from time to time.
type checking struct {
	counts  *check.Progress
	w       io.Writer
	every   time.Duration
	over    bool // write over the last line
	started time.Time
	done    chan struct{}
	wg      sync.WaitGroup
}

func (a *app) startChecking() *checking {
	p := &checking{counts: new(check.Progress), w: a.stderr, every: 30 * time.Second, started: time.Now(), done: make(chan struct{})}
	if f, ok := a.stderr.(*os.File); ok && isTerminal(f) {
		p.every, p.over = 500*time.Millisecond, true
	}
	p.wg.Go(p.run)
	return p
}

func (p *checking) run() {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	shown := false
	for {
		select {
		case <-p.done:
			if shown && p.over {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
		n := p.counts.Bytes.Load()
		rate := int64(float64(n) / time.Since(p.started).Seconds())
		line := fmt.Sprintf("coffer: %d objects, %s, %s/s", p.counts.Objects.Load(), humanBytes(n), humanBytes(rate))
		if p.over {
			fmt.Fprintf(p.w, "\r%s\x1b[K", line)
		} else {
			fmt.Fprintln(p.w, line)
		}
		shown = true
	}
}

func (p *checking) stop() {
	close(p.done)
	p.wg.Wait()
}
