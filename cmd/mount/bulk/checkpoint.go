package bulk

import (
	"time"

	"github.com/cofferfs/coffer/container"
)

// checkpoints makes the resume points of one file, one at a time, while the copying goes on: the bytes before it are made durable, then the record that says so.
// What is written meanwhile lies behind them in slots that nothing on the host speaks of yet. Not for concurrent use.
type checkpoints struct {
	m      *Import
	file   *container.File
	source identity
	stem   string

	since   int64 // bytes written behind the last one
	last    time.Time
	running chan error // nil: none is being made
}

// at begins a resume point where one is due; plain bytes up to off, a multiple of the chunk size, are written. It waits for the one before, and its error may be
// that one's.
func (p *checkpoints) at(off int64) error {
	if p.since == 0 || p.since < p.m.sizes.checkpoint/2 && time.Since(p.last) < checkpointTime/2 {
		return nil
	}
	if err := p.wait(); err != nil {
		return err
	}
	if p.file.Size() < off { // a hole came last
		if err := p.file.SetSize(off); err != nil {
			return err
		}
	}
	if err := p.file.Flush(); err != nil {
		return err
	}
	p.since, p.last, p.running = 0, time.Now(), make(chan error, 1)
	go func(done chan<- error) {
		start := time.Now()
		err := p.file.Host().Datasync()
		if err == nil {
			err = p.m.partials.write(p.stem, record{id: p.file.ID(), source: p.source, geometry: p.file.Geometry().ID, durable: uint64(off)})
		}
		p.m.counters.syncing.Add(int64(time.Since(start)))
		done <- err
	}(p.running)
	return nil
}

// wait returns when no resume point is being made any more.
func (p *checkpoints) wait() error {
	if p.running == nil {
		return nil
	}
	err := <-p.running
	p.running = nil
	return err
}
