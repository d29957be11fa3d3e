package container

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// DefaultMetaBudget bounds the verified metadata that an engine keeps, in bytes.
const DefaultMetaBudget = 16 << 20

// EngineConfig is what an engine is made of. Zero values mean: as many workers as processors, DefaultMetaBudget.
type EngineConfig struct {
	Ring       *keys.Ring
	Params     keys.FileParams // of new containers
	Workers    int             // of the frame pool, the callers included
	MetaBudget int64           // bytes of verified meta blocks and tree nodes
	Events     event.Sink
	// Journal of the session, but for Pressed, which is the engine's. nil: changes are written in place, and a power cut may damage what is being changed.
	Journal *journal.Config
	Host    disk.Dir // the vault's root, for checkpoints; with a Journal
	// View shows what is in a journal that may not be replayed, since nothing may be written; nil: nothing is.
	View *redo.View
}

// Engine opens and makes the containers of one vault. It owns the frame pool and the cache of verified metadata. All methods
// may be called concurrently.
type Engine struct {
	ring   *keys.Ring
	params keys.FileParams
	geo    *Geometry
	pool   *pool
	events event.Sink
	serial atomic.Uint64 // of files, so that cached metadata of one never serves another
	opened atomic.Uint64 // frames opened
	sealed atomic.Uint64 // frames sealed
	crypto atomic.Int64  // ns in both
	segs   atomic.Uint64 // segments read or written
	read   atomic.Int64  // bytes from host files
	wrote  atomic.Int64  // bytes to host files

	headers sync.Pool // of *block: headers that are being read or written, and records in them of files that are open; see headerBlock

	applier *applier   // nil without a journal
	view    *redo.View // nil where there is nothing to be shown

	metaMu sync.Mutex // guards meta
	meta   *simplelru.LRU[metaKey, *block]
}

type metaKey struct {
	serial uint64
	level  uint8
	index  uint64
}

// NewEngine returns an engine for the containers of one vault.
func NewEngine(c EngineConfig) (*Engine, error) {
	geo, err := GeometryFor(int(c.Params.SegmentSize), int(c.Params.FrameSize))
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	if !DigestAlg(c.Params.Digest).valid() {
		return nil, fmt.Errorf("container: digest %d: %w", c.Params.Digest, ErrFeature)
	}
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.MetaBudget <= 0 {
		c.MetaBudget = DefaultMetaBudget
	}
	meta, err := simplelru.NewLRU[metaKey, *block](int(max(1, c.MetaBudget/BlockSize)), nil)
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	e := &Engine{ring: c.Ring, params: c.Params, geo: geo, pool: newPool(c.Workers), events: c.Events, meta: meta, view: c.View}
	if c.Journal != nil {
		if e.applier, err = newApplier(*c.Journal, c.Host, c.Events, &e.pool.lent); err != nil {
			return nil, fmt.Errorf("container: %w", err)
		}
	}
	return e, nil
}

// Close applies and syncs what is in the journal, and removes it, after the last File was closed. Where it is not to end cleanly, or on an error, the journal
// stays for the next mount to replay. Without a journal it does nothing.
func (e *Engine) Close(clean bool) error {
	if e.applier == nil {
		return nil
	}
	return e.applier.close(clean)
}

// Checkpoint returns when everything that was flushed before is durable in its place on the host.
func (e *Engine) Checkpoint() error {
	if e.applier == nil {
		return nil
	}
	return e.applier.checkpointNow()
}

// Suspend makes everything that was flushed durable in its place and removes the journal: the host's files are then as after a clean unmount. No change may be
// under way, and none may come before Resume. Without a journal it does nothing.
func (e *Engine) Suspend() error {
	if e.applier == nil {
		return nil
	}
	return e.applier.suspend()
}

// Fail refuses every change from now on, until the vault is mounted anew. It answers the error that they get.
func (e *Engine) Fail(op string, err error) error {
	if e.applier == nil {
		return err
	}
	return e.applier.fail(op, err)
}

// Resume ends what Suspend began, and begins the journal id. Without a journal it does nothing. After an error no change is accepted any more.
func (e *Engine) Resume(id [16]byte) error {
	if e.applier == nil {
		return nil
	}
	return e.applier.resume(id)
}

// Intend returns the function that makes the intent of an exchange (package redo) durable, before the first of its host calls; done is to be called when these
// are over and synced, with an error where they are half done for good. Without a journal there is none: nil.
func (e *Engine) Intend() func(payload []byte) (done func(error), err error) {
	if e.applier == nil {
		return nil
	}
	return e.applier.intend
}

// Geometry is that of new containers.
func (e *Engine) Geometry() *Geometry { return e.geo }

// Stats counts since the engine was made.
type Stats struct {
	FramesOpened, FramesSealed uint64
	Segments                   uint64        // read or written, each as often as it was
	Crypto                     time.Duration // in opening and sealing frames of segments, summed over the workers
	BytesRead, BytesWritten    int64         // of host files, metadata included; what the journal moves is not
}

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	return Stats{
		FramesOpened: e.opened.Load(), FramesSealed: e.sealed.Load(), Segments: e.segs.Load(), Crypto: time.Duration(e.crypto.Load()),
		BytesRead: e.read.Load(), BytesWritten: e.wrote.Load(),
	}
}

func (e *Engine) cachedMeta(k metaKey) *block {
	e.metaMu.Lock()
	defer e.metaMu.Unlock()
	b, _ := e.meta.Get(k)
	return b
}

func (e *Engine) cacheMeta(k metaKey, b *block) {
	e.metaMu.Lock()
	defer e.metaMu.Unlock()
	e.meta.Add(k, b)
}
