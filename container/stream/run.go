package stream

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/cofferfs/coffer/container"
)

// windowBytes bounds the plaintext and ciphertext of the segments that one Run has under way.
const windowBytes = 64 << 20

// Result is what became of one segment: Value, or Err, a *container.SegmentError.
type Result[T any] struct {
	Value T
	Err   error
}

// Totals counts what one Run did, in this run only: resuming never makes it less than the work done.
type Totals struct {
	Segments          int // delivered, failed ones not included
	Failed            int // delivered with an error
	Skipped           int // before the resume point
	CheckpointsFailed int
	container.Telemetry
}

// window is how many segments may be under way: enough to keep all workers busy while one is delivered, within windowBytes.
func window(workers int, g *container.Geometry) int {
	return min(2*workers, max(2, windowBytes/(2*g.SegmentSize)))
}

func workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// run calls process for every input, in parallel, and hands the results to deliver in the order of the inputs. It returns when in is closed and everything
// is delivered, or with ctx's error when that ended before; no goroutine of it is left then. At most window+2 inputs have been taken and not delivered.
// A panic in process is the error of its segment.
func run[I, O any](ctx context.Context, in <-chan I, workers, window int, process func(I) Result[O], deliver func(Result[O]) error) error {
	ctx, cancel := context.WithCancel(ctx)
	order := make(chan chan Result[O], window)
	tokens := make(chan struct{}, workers)
	var wg sync.WaitGroup
	defer wg.Wait() // after cancel
	defer cancel()
	var ended bool // in was closed and all of it is in order; written before order is closed
	wg.Go(func() {
		defer close(order)
		for {
			var input I
			select {
			case <-ctx.Done():
				return
			case i, ok := <-in:
				if !ok {
					ended = true
					return
				}
				input = i
			}
			slot := make(chan Result[O], 1)
			select {
			case <-ctx.Done():
				return
			case order <- slot:
			}
			tokens <- struct{}{} // a worker always ends
			wg.Go(func() {
				defer func() { <-tokens }()
				slot <- process(input)
			})
		}
	})
	for slot := range order {
		if err := deliver(<-slot); err != nil {
			return err
		}
	}
	if !ended {
		return ctx.Err()
	}
	return nil
}

// guard is process with a panic as an error.
func guard[O any](op string, segment uint64, process func() (O, error)) (r Result[O]) {
	defer func() {
		if p := recover(); p != nil {
			r.Err = &container.SegmentError{Op: op, Segment: segment, Err: fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())}
		}
	}()
	r.Value, r.Err = process()
	return r
}
