package stream

import (
	"bytes"
	"context"
	"errors"
	mrand "math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

var testKey = bytes.Repeat([]byte{0x42}, 32)

func crypto(t testing.TB, segment, frame int, d container.DigestAlg) *container.SegmentCrypto {
	t.Helper()
	mk, err := keys.MasterKeyFrom(testKey)
	if err != nil {
		t.Fatal(err)
	}
	p := keys.FileParams{Suite: suite.XAES256GCM, Digest: uint8(d), SegmentSize: uint32(segment), FrameSize: uint32(frame)}
	k := keys.Stream(mk, keys.VaultID{1}, p)
	c, err := container.NewSegmentCrypto(keys.VaultID{1}, keys.ObjectID{}, p, &k, 2)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	mrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// leaks fails the test when goroutines outlive it.
func leaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if runtime.NumGoroutine() <= before {
				return
			}
		}
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

func cut(p []byte, n int) (parts [][]byte) {
	for len(p) > n {
		parts, p = append(parts, p[:n]), p[n:]
	}
	return append(parts, p)
}

// sealAll runs the Encrypter over p.
func sealAll(t *testing.T, w *Encrypter, p []byte, resume *container.ResumePoint) ([]Result[container.EncryptedSegment], Totals) {
	t.Helper()
	in, out := make(chan container.EncryptSegmentInput), make(chan Result[container.EncryptedSegment])
	go func() {
		defer close(in)
		parts := cut(p, w.Crypto.Geometry().SegmentSize)
		for i, part := range parts {
			in <- container.EncryptSegmentInput{SegmentIndex: uint64(i), Plaintext: part, Final: i == len(parts)-1}
		}
	}()
	return collect(t, out, func() (Totals, error) { return w.Run(context.Background(), in, out, resume) })
}

func openAll(t *testing.T, w *Decrypter, wires [][]byte, resume *container.ResumePoint) ([]Result[container.DecryptedSegment], Totals) {
	t.Helper()
	in, out := make(chan container.DecryptSegmentInput), make(chan Result[container.DecryptedSegment])
	go func() {
		defer close(in)
		for i, wire := range wires {
			in <- container.DecryptSegmentInput{SegmentIndex: uint64(i), Wire: wire}
		}
	}()
	return collect(t, out, func() (Totals, error) { return w.Run(context.Background(), in, out, resume) })
}

func collect[T any](t *testing.T, out <-chan Result[T], run func() (Totals, error)) (all []Result[T], totals Totals) {
	t.Helper()
	done := make(chan error)
	go func() {
		var err error
		totals, err = run()
		done <- err
	}()
	for r := range out {
		all = append(all, r)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return all, totals
}

func wiresOf(t *testing.T, all []Result[container.EncryptedSegment]) (wires [][]byte) {
	t.Helper()
	for i, r := range all {
		if r.Err != nil || r.Value.SegmentIndex != uint64(i) {
			t.Fatalf("result %d is of segment %d: %v", i, r.Value.SegmentIndex, r.Err)
		}
		wires = append(wires, r.Value.Wire)
	}
	return wires
}

func TestRun(t *testing.T) {
	leaks(t)
	c := crypto(t, 16<<10, 4<<10, container.BLAKE3)
	plain := random(1, 100*16<<10+77)
	var points []container.ResumePoint
	enc := &Encrypter{Crypto: c, Workers: 3, Checkpoint: func(p container.ResumePoint) error { points = append(points, p); return nil }}
	sealed, totals := sealAll(t, enc, plain, nil)
	wires := wiresOf(t, sealed)
	wire := int64(len(bytes.Join(wires, nil)))
	if want := (Totals{Segments: 101, Telemetry: container.Telemetry{Frames: 401, BytesPlain: int64(len(plain)), BytesWire: wire}}); totals != want {
		t.Errorf("totals %+v, want %+v", totals, want)
	}
	if len(points) != 101 || points[100].Segment != 101 {
		t.Errorf("%d checkpoints", len(points))
	}
	opened, totals := openAll(t, &Decrypter{Crypto: c}, wires, nil)
	var got []byte
	for i, r := range opened {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if r.Value.Final != (i == 100) {
			t.Errorf("segment %d: final %v", i, r.Value.Final)
		}
		got = append(got, r.Value.Plain()...)
	}
	if !bytes.Equal(got, plain) || totals.Frames != 401 || totals.BytesWire != wire {
		t.Errorf("%d bytes came back; %+v", len(got), totals)
	}
}

// TestResume cuts the output of an Encrypter at every byte where something ends, and in between: what is durable and what the resumed run makes is one good
// stream, and no frame of the durable part is sealed again.
func TestResume(t *testing.T) {
	leaks(t)
	for _, d := range []container.DigestAlg{container.BLAKE3, container.NoDigest} {
		c := crypto(t, 16<<10, 4<<10, d)
		plain := random(2, 3*16<<10+5000)
		sealed, _ := sealAll(t, &Encrypter{Crypto: c}, plain, nil)
		wiresOf(t, sealed)
		for cutIn := range sealed {
			whole := sealed[cutIn].Value
			for _, n := range []int{0, 1, 4167, 4168, 4169, 2 * 4168, len(whole.Wire) - 112, len(whole.Wire) - 1, len(whole.Wire)} {
				if n > len(whole.Wire) {
					continue
				}
				point := whole.Resume(n)
				again, totals := sealAll(t, &Encrypter{Crypto: c}, plain, &point)
				var wires [][]byte
				durable := int(point.NextFrame) * 4168
				for i := range sealed {
					switch {
					case i < int(point.Segment):
						if len(again[i].Value.Wire) != 0 {
							t.Fatalf("segment %d before the resume point was sealed again", i)
						}
						wires = append(wires, sealed[i].Value.Wire)
					case i == int(point.Segment):
						wires = append(wires, append(bytes.Clone(sealed[i].Value.Wire[:durable]), again[i].Value.Wire...))
					default:
						wires = append(wires, again[i].Value.Wire)
					}
				}
				if totals.Frames+totals.Reused != 14 || totals.Skipped != int(point.Segment) {
					t.Errorf("cut at %d of segment %d: %+v", n, cutIn, totals)
				}
				opened, _ := openAll(t, &Decrypter{Crypto: c}, wires, nil)
				var got []byte
				for _, r := range opened {
					if r.Err != nil {
						t.Fatalf("cut at %d of segment %d: %v", n, cutIn, r.Err)
					}
					got = append(got, r.Value.Plain()...)
				}
				if !bytes.Equal(got, plain) {
					t.Fatalf("cut at %d of segment %d: other bytes", n, cutIn)
				}
				_, totals = openAll(t, &Decrypter{Crypto: c}, wires, &point)
				if want := 4*(4-int(point.Segment)) - 2*b2i(point.Segment < 4); totals.Failed != 0 || totals.Frames != max(0, want) {
					t.Errorf("cut at %d of segment %d: opening resumed: %+v, want %d frames", n, cutIn, totals, want)
				}
			}
		}
		bad := container.ResumePoint{Segment: 1, NextFrame: 2, Leaves: make([]byte, 8)}
		again, totals := sealAll(t, &Encrypter{Crypto: c}, plain, &bad)
		if !errors.Is(again[1].Err, container.ErrResume) || totals.Failed != 1 {
			t.Errorf("bad resume point: %v", again[1].Err)
		}
		if d != container.NoDigest {
			bad.Leaves = make([]byte, 16)
			opened, _ := openAll(t, &Decrypter{Crypto: c}, wiresOf(t, sealed), &bad)
			if !errors.Is(opened[1].Err, container.ErrDigest) {
				t.Errorf("wrong leaves: %v", opened[1].Err)
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestFailures: a failed segment is its own error and the others come, a checkpoint that fails is a warning, and none is told behind a failure.
func TestFailures(t *testing.T) {
	leaks(t)
	c := crypto(t, 16<<10, 4<<10, container.CRC32C)
	plain := random(3, 10*16<<10)
	var warned []error
	sealed, totals := sealAll(t, &Encrypter{
		Crypto:     c,
		Checkpoint: func(container.ResumePoint) error { return errors.New("disk full") },
		Warn:       func(err error) { warned = append(warned, err) },
	}, plain, nil)
	wires := wiresOf(t, sealed)
	if len(warned) != 10 || totals.CheckpointsFailed != 10 || totals.Segments != 10 || !strings.Contains(warned[3].Error(), "segment 3: disk full") {
		t.Errorf("%d warnings, %+v", len(warned), totals)
	}
	wires[4] = bytes.Clone(wires[4])
	wires[4][4168+100] ^= 1
	wires[4][3*4168+100] ^= 1
	var told []uint64
	opened, totals := openAll(t, &Decrypter{Crypto: c, Checkpoint: func(p container.ResumePoint) error { told = append(told, p.Segment); return nil }}, wires, nil)
	var se *container.SegmentError
	var fe *container.FrameError
	if err := opened[4].Err; !errors.As(err, &se) || !errors.As(err, &fe) || !errors.Is(err, container.ErrAuth) || se.Segment != 4 || fe.Frame != 1 {
		t.Errorf("error %v", err)
	}
	if totals.Failed != 1 || totals.Segments != 9 || len(told) != 4 {
		t.Errorf("%+v, told %v", totals, told)
	}
}

// TestPanic: a panic is the error of its segment.
func TestPanic(t *testing.T) {
	leaks(t)
	in := make(chan int)
	go func() {
		defer close(in)
		for i := range 20 {
			in <- i
		}
	}()
	n := 0
	err := run(context.Background(), in, 4, 4, func(i int) Result[int] {
		return guard("seal", uint64(i), func() (int, error) {
			if i == 7 {
				panic("boom")
			}
			return i, nil
		})
	}, func(r Result[int]) error {
		var se *container.SegmentError
		if n == 7 {
			if !errors.Is(r.Err, ErrPanic) || !errors.As(r.Err, &se) || se.Segment != 7 || !strings.Contains(r.Err.Error(), "boom") {
				t.Errorf("panic gives %v", r.Err)
			}
		} else if r.Err != nil || r.Value != n {
			t.Errorf("result %d is %+v", n, r)
		}
		n++
		return nil
	})
	if err != nil || n != 20 {
		t.Errorf("%d results, %v", n, err)
	}
}

// TestBounds: however slow the receiver, only so many inputs are taken; and an end of the context ends everything.
func TestBounds(t *testing.T) {
	leaks(t)
	c := crypto(t, 16<<10, 4<<10, container.NoDigest)
	in, out := make(chan container.EncryptSegmentInput), make(chan Result[container.EncryptedSegment])
	ctx, cancel := context.WithCancel(context.Background())
	var taken atomic.Int64
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for i := uint64(0); ; i++ {
			select {
			case in <- container.EncryptSegmentInput{SegmentIndex: i, Plaintext: make([]byte, 16<<10)}:
				taken.Add(1)
			case <-ctx.Done():
				return
			}
		}
	}()
	done := make(chan error)
	go func() {
		_, err := (&Encrypter{Crypto: c, Workers: 3}).Run(ctx, in, out, nil)
		done <- err
	}()
	<-out
	time.Sleep(50 * time.Millisecond)
	if n := taken.Load(); n > 1+6+2 {
		t.Errorf("%d inputs taken while one was delivered", n)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run after cancel: %v", err)
	}
	if _, ok := <-out; ok {
		t.Error("out is still open")
	}
	<-fed
	for _, g := range []int{16 << 10, 1 << 20, 4 << 20} {
		geo, _ := container.GeometryFor(g, 0)
		if n := window(64, geo); (n+2)*2*g > windowBytes+4*g && n > 2 {
			t.Errorf("window of %d segments of %d", n, g)
		}
	}
}

// heap is what is in use or was not collected yet.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
