package bulk

import (
	"sync/atomic"
	"time"
)

// checkpoints makes the resume points of one file, one at a time, while the copying goes on: the bytes before it are made durable, then what says so. Not for
// concurrent use. A nil one makes none.
type checkpoints struct {
	every   int64                 // bytes that may be lost: half of them between two points, half while one is made
	ready   func(off int64) error // called before, while nothing is written
	save    func(off int64) error // makes what lies before off durable, and then the resume point; called beside the copying
	syncing *atomic.Int64         // ns

	since   int64 // bytes written behind the last one
	last    time.Time
	running chan error // nil: none is being made
}

// at begins a resume point where one is due; all before off is written. It waits for the one before, and its error may be that one's.
func (p *checkpoints) at(off int64) error {
	if p == nil || p.since == 0 || p.since < p.every/2 && time.Since(p.last) < checkpointTime/2 {
		return nil
	}
	if err := p.wait(); err != nil {
		return err
	}
	if err := p.ready(off); err != nil {
		return err
	}
	p.since, p.last, p.running = 0, time.Now(), make(chan error, 1)
	go func(done chan<- error) {
		start := time.Now()
		err := p.save(off)
		p.syncing.Add(int64(time.Since(start)))
		done <- err
	}(p.running)
	return nil
}

// wrote counts what lies behind the last resume point.
func (p *checkpoints) wrote(n int) {
	if p != nil {
		p.since += int64(n)
	}
}

// wait returns when no resume point is being made any more.
func (p *checkpoints) wait() error {
	if p == nil || p.running == nil {
		return nil
	}
	err := <-p.running
	p.running = nil
	return err
}
