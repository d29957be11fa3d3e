package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	mrand "math/rand/v2"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// destroyed is what a test of patches writes: single frames of a file whose tree has nodes, each synced before the next.
type destroyed struct {
	t      *testing.T
	r      *logRig
	g      *Geometry
	id     keys.ObjectID
	places []int64
	synced []ack
}

// ack says that after so many operations of the disk the frames had at least these versions.
type ack struct {
	ops  int
	have []uint64
}

const destroyedSize = 12 << 20

// A power cut may destroy any block that is being written in its place, all of it: what the journal has of it suffices, though most of its transactions
// have no more than the changed bytes. The applier and checkpoints work all the time.
func TestPatchesOfDestroyedBlocks(t *testing.T) {
	for seed := range uint64(2) {
		g := geometries[8]
		d := &destroyed{t: t, r: newLogRig(t, g), g: g, id: testID(9), places: []int64{0, 4096, 5 << 20, 9 << 20, 9<<20 + 64<<10, 12<<20 - 4096}}
		ops := d.write(mrand.New(mrand.NewPCG(seed, 3)))
		rng, struck := mrand.New(mrand.NewPCG(seed, 4)), 0
		for k := rng.IntN(90); k < ops; k += 1 + rng.IntN(90) {
			struck += d.cut(k, rng)
		}
		if struck == 0 {
			t.Error("no cut destroyed a block")
		}
	}
}

// write fills the file and overwrites it, and answers how many operations the disk recorded.
func (d *destroyed) write(rng *mrand.Rand) int {
	h, err := d.r.root.Create("f", 0o600)
	d.ok(err)
	f, err := d.r.eng.Create(h, d.id, ObjectFile)
	d.ok(err)
	f.SetName(func() []string { return []string{"f"} }, func() error { return nil })
	version := make([]uint64, len(d.places))
	put := func(i int) {
		version[i]++
		plain := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, version[i]), d.g.FrameSize/8)
		w := SegmentWrite{Segment: d.g.segmentOf(d.places[i]), Frames: make([][]byte, d.g.Frames), Dirty: 1 << d.g.frameOf(d.places[i])}
		w.Frames[d.g.frameOf(d.places[i])] = plain
		d.ok(f.WriteFrames(destroyedSize, []SegmentWrite{w}))
		d.ok(f.Sync())
	}
	for i := range d.places {
		put(i)
	}
	d.ok(d.r.eng.Checkpoint())
	d.ok(d.r.root.SyncAll())
	d.r.disk.Record()
	note := func() { d.synced = append(d.synced, ack{d.r.disk.Ops(), append([]uint64(nil), version...)}) }
	note()
	var checkpoints sync.WaitGroup
	for range 150 {
		put(rng.IntN(len(d.places)))
		note()
		switch rng.IntN(12) {
		case 0:
			checkpoints.Go(func() { d.ok(d.r.eng.Checkpoint()) })
		case 1:
			d.ok(f.drain())
		}
	}
	ops := d.r.disk.Ops()
	checkpoints.Wait()
	d.ok(f.Close())
	d.ok(d.r.eng.Close(true))
	return ops
}

// cut takes the power after k operations, destroys what was under way, and reads the file as a replay leaves it. It answers how many blocks it destroyed.
func (d *destroyed) cut(k int, rng *mrand.Rand) (struck int) {
	kept, m := d.open(d.r.disk.CutAt(k, disktest.LoseNothing, rng)), d.r.disk.CutAt(k, disktest.LoseAll, rng)
	f := d.open(m)
	for at := 0; at+BlockSize <= len(kept.all); at += BlockSize {
		if b := f.all[at:]; !bytes.Equal(kept.all[at:at+BlockSize], b[:min(BlockSize, len(b))]) {
			_, err := f.WriteAt(bytes.Repeat([]byte{0xee}, BlockSize), int64(at))
			d.ok(err)
			struck++
		}
	}
	dir, err := m.Root().OpenDir(".coffer")
	d.ok(err)
	view, err := redo.Load(redo.Config{Root: m.Root(), Journal: journal.Config{Dir: dir, MAC: testMAC, Vault: [16]byte{1}, ID: [16]byte{2}}})
	d.ok(err)
	defer view.Close()
	e, err := NewEngine(EngineConfig{
		Ring: d.r.ring, View: view, Events: func(e event.Event) { d.t.Logf("event: %+v", e) },
		Params: keys.FileParams{Suite: suite.XAES256GCM, Digest: uint8(CRC32C), SegmentSize: uint32(d.g.SegmentSize), FrameSize: uint32(d.g.FrameSize)},
	})
	d.ok(err)
	c, err := e.Open(f, d.id, OpenOptions{ReadOnly: true})
	if err != nil {
		d.t.Fatalf("cut after %d operations, %d blocks destroyed: %v", k, struck, err)
	}
	defer c.Close()
	least := d.synced[0]
	for _, a := range d.synced {
		if a.ops <= k {
			least = a
		}
	}
	for i, at := range d.places {
		got := make([]byte, d.g.FrameSize)
		if err := c.ReadAt(got, at); err != nil {
			d.t.Fatalf("cut after %d operations, %d blocks destroyed: frame at %d: %v", k, struck, at, err)
		}
		if v := binary.LittleEndian.Uint64(got); v < least.have[i] || v > least.have[i]+1 {
			d.t.Fatalf("cut after %d operations, %d blocks destroyed: frame at %d has version %d, %d was synced", k, struck, at, v, least.have[i])
		}
	}
	return struck
}

// host is the file on the host with all its bytes.
type host struct {
	disk.File
	all []byte
}

func (d *destroyed) open(m *disktest.Memory) host {
	f, err := m.Root().Open("f", disk.ReadWrite)
	d.ok(err)
	all, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	d.ok(err)
	return host{f, all}
}

func (d *destroyed) ok(err error) {
	d.t.Helper()
	if err != nil && !errors.Is(err, ErrClosed) {
		d.t.Fatal(err)
	}
}

// The journal keeps the whole block that a transaction patches until that one is applied, and a block that a checkpoint may have given up is not patched.
func TestPatchKeepsItsBlock(t *testing.T) {
	a := &applier{open: map[any]journal.LSN{}, cutoff: 512}
	tx := &transaction{patches: true, base: 512}
	if err := a.keepFor(tx)(2048); err != nil || a.open[tx] != 512 || tx.begin != 2048 {
		t.Errorf("kept from %d, begins at %d: %v", a.open[tx], tx.begin, err)
	}
	a.unkeep(tx)
	a.cutoff = 1024
	if err := a.keepFor(tx)(4096); !errors.Is(err, errGivenUp) || len(a.open) > 0 {
		t.Errorf("kept from %v: %v", a.open, err)
	}
	tx.wholeBlocks()
	if err := a.keepFor(tx)(4096); err != nil || a.open[tx] != 4096 {
		t.Errorf("kept from %d: %v", a.open[tx], err)
	}
}

// Of a commit that overwrites one frame the journal gets the frame and little more.
func TestPatchesAreSmall(t *testing.T) {
	g := geometries[8]
	d := &destroyed{t: t, r: newLogRig(t, g), g: g, id: testID(9), places: []int64{9 << 20}}
	log := d.r.eng.applier.log.Load()
	h, err := d.r.root.Create("f", 0o600)
	d.ok(err)
	f, err := d.r.eng.Create(h, d.id, ObjectFile)
	d.ok(err)
	var before journal.LSN
	const writes = 20
	for i := range 3 + writes {
		if i == 3 { // the file is durable, and the journal has its blocks
			before = log.End()
		}
		w := SegmentWrite{Segment: g.segmentOf(9 << 20), Frames: make([][]byte, g.Frames), Dirty: 1}
		w.Frames[0] = bytes.Repeat([]byte{byte(i)}, g.FrameSize)
		d.ok(f.WriteFrames(destroyedSize, []SegmentWrite{w}))
		d.ok(f.Sync())
	}
	if n := int64(log.End()-before) / writes; n > 5<<10 {
		t.Errorf("%d bytes of journal for each frame of %d", n, g.FrameSize)
	}
	d.ok(f.Close())
	d.ok(d.r.eng.Close(true))
}
