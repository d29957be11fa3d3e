package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container"
)

// ErrPanic: a worker panicked. The segment it worked on has failed, others have not.
var ErrPanic = errors.New("panic in a segment worker")

// Encrypter is the segment worker that seals. Its fields are set before Run and not changed while it runs.
type Encrypter struct {
	Crypto  *container.SegmentCrypto
	Workers int // segments sealed at a time; 0: as many as processors

	// Checkpoint is told, in order, the point up to which every segment was handed over. It tells progress, no more: whoever needs what was handed over
	// to be durable makes it so first, and takes the point from EncryptedSegment.Resume. nil: nobody wants to know.
	Checkpoint func(container.ResumePoint) error
	// Warn is told why a checkpoint could not be written; the segment has not failed. nil: it is counted only.
	Warn func(error)
}

// Decrypter is the segment worker that opens. Its fields are those of Encrypter.
type Decrypter struct {
	Crypto     *container.SegmentCrypto
	Workers    int
	Checkpoint func(container.ResumePoint) error
	Warn       func(error)
}

// Run seals every segment from in and sends one result for each to out, in the order of in; several are worked on at a time, and the number of those
// taken and not yet sent is bounded. It closes out when it returns: with nil when in is closed and everything was sent, with ctx's error when that ended
// before. A segment that fails is a result with an error; the ones after it are sealed as ever.
//
// With resume, which may be nil, segments before it are answered without being sealed (no Wire, their frames as Reused), and the one in which it lies
// begins with the frame it names: no frame before it is ever sealed again. The plaintext must be that of the earlier run.
//
// Plaintext and Dst of an input belong to the worker until its result is sent.
func (w *Encrypter) Run(ctx context.Context, in <-chan container.EncryptSegmentInput, out chan<- Result[container.EncryptedSegment], resume *container.ResumePoint) (Totals, error) {
	defer close(out)
	d := delivery[container.EncryptedSegment]{ctx: ctx, out: out, resume: resume, checkpoint: w.Checkpoint, warn: w.Warn}
	n, g := workers(w.Workers), w.Crypto.Geometry()
	err := run(ctx, in, n, window(n, g), func(i container.EncryptSegmentInput) Result[container.EncryptedSegment] {
		if resume != nil && i.SegmentIndex < resume.Segment {
			frames := (len(i.Plaintext) + g.FrameSize - 1) / g.FrameSize
			return Result[container.EncryptedSegment]{Value: container.EncryptedSegment{SegmentIndex: i.SegmentIndex, Telemetry: container.Telemetry{Reused: frames}}}
		}
		return guard("seal", i.SegmentIndex, func() (container.EncryptedSegment, error) { return w.Crypto.ProcessEncryptSegment(i, resume) })
	}, func(r Result[container.EncryptedSegment]) error {
		return d.send(r, r.Value.SegmentIndex, r.Value.Telemetry)
	})
	return d.totals, err
}

// Run opens every segment from in and sends one result for each to out, as Encrypter.Run does. With resume, segments before it are answered without being
// opened (no Frames), and of the one in which it lies all frames are opened, but only those from the one it names on are hashed again.
//
// Wire and Dst of an input belong to the worker until its result is sent.
func (w *Decrypter) Run(ctx context.Context, in <-chan container.DecryptSegmentInput, out chan<- Result[container.DecryptedSegment], resume *container.ResumePoint) (Totals, error) {
	defer close(out)
	d := delivery[container.DecryptedSegment]{ctx: ctx, out: out, resume: resume, checkpoint: w.Checkpoint, warn: w.Warn}
	n := workers(w.Workers)
	err := run(ctx, in, n, window(n, w.Crypto.Geometry()), func(i container.DecryptSegmentInput) Result[container.DecryptedSegment] {
		if resume != nil && i.SegmentIndex < resume.Segment {
			return Result[container.DecryptedSegment]{Value: container.DecryptedSegment{SegmentIndex: i.SegmentIndex}}
		}
		return guard("open", i.SegmentIndex, func() (container.DecryptedSegment, error) { return w.Crypto.ProcessDecryptSegment(i, resume) })
	}, func(r Result[container.DecryptedSegment]) error {
		return d.send(r, r.Value.SegmentIndex, r.Value.Telemetry)
	})
	return d.totals, err
}

// delivery sends results, counts, and tells the checkpoints. It is used by one goroutine.
type delivery[T any] struct {
	ctx        context.Context
	out        chan<- Result[T]
	resume     *container.ResumePoint
	checkpoint func(container.ResumePoint) error
	warn       func(error)
	failed     bool // a segment was not handed over: what follows it is no point to go on from
	totals     Totals
}

func (d *delivery[T]) send(r Result[T], segment uint64, t container.Telemetry) error {
	select {
	case <-d.ctx.Done():
		return d.ctx.Err()
	case d.out <- r:
	}
	switch {
	case r.Err != nil:
		d.failed = true
		d.totals.Failed++
		return nil
	case d.resume != nil && segment < d.resume.Segment:
		d.totals.Skipped++
		d.totals.Add(t)
		return nil
	}
	d.totals.Segments++
	d.totals.Add(t)
	if d.checkpoint == nil || d.failed {
		return nil
	}
	if err := d.checkpoint(container.ResumePoint{Segment: segment + 1}); err != nil {
		d.totals.CheckpointsFailed++
		if d.warn != nil {
			d.warn(fmt.Errorf("stream: checkpoint after segment %d: %w", segment, err))
		}
	}
	return nil
}
