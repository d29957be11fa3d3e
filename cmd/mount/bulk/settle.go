package bulk

import (
	"fmt"
	"time"

	"github.com/cofferfs/coffer/container"
)

// whole is a file that has all of its bytes and attributes and waits to be durable and named.
type whole struct {
	to    name
	file  *container.File // nil where it is closed already
	stem  string
	size  int64  // plain
	path  string // of the source
	ident identity
	links bool // the source has other names
	large bool // there may be a record
}

// batch is files that become durable together, and the directories that were left since the one before.
type batch struct {
	files  []whole
	left   []leftDir
	bytes  int64 // plain
	began  time.Time
	synced chan error // told once, when all of files is durable
}

// made is what became of a source.
type made struct {
	whole
	err error
}

// making is small files that are made at the same time.
type making struct {
	done chan made
	n    int // not yet taken from done
}

// begin runs make beside others, of which it waits for one where there are enough.
func (k *making) begin(m *Import, make func() made) {
	if k.n == cap(k.done) {
		k.take(m)
		if b := m.open; len(b.files) >= batchFiles || b.bytes > m.sizes.checkpoint || time.Since(b.began) > checkpointTime {
			m.turn()
		}
	}
	k.n++
	go func() { k.done <- make() }()
}

func (k *making) take(m *Import) {
	f := <-k.done
	k.n--
	m.add(f)
}

// end returns when none is being made any more.
func (k *making) end(m *Import) {
	for k.n > 0 {
		k.take(m)
	}
}

// turn begins to make the open batch durable, which goes on beside what comes next, and gives the files of the one before their names.
func (m *Import) turn() {
	m.making.end(m)
	b, before := m.open, m.settling
	m.open, m.settling = &batch{began: time.Now()}, b
	b.synced = make(chan error, 1)
	err := before.wait()
	go func() { b.synced <- m.sync(b) }()
	m.name(before, err)
}

// settle makes everything that is whole durable and gives it its name.
func (m *Import) settle() {
	m.turn()
	m.name(m.settling, m.settling.wait())
	m.settling = nil
}

// wait returns the error of the sync; b may be nil.
func (b *batch) wait() error {
	if b == nil {
		return nil
	}
	return <-b.synced
}

func (m *Import) sync(b *batch) error {
	start := time.Now()
	defer func() { m.counters.syncing.Add(int64(time.Since(start))) }()
	switch {
	case len(b.files) == 0:
		return nil
	case len(b.files) == 1 && b.files[0].file != nil:
		return b.files[0].file.Host().Sync()
	}
	return m.SyncOf()
}

// name gives the files of a batch their names and its directories their attributes, where err, of its sync, is nil; b may be nil.
func (m *Import) name(b *batch, err error) {
	if b == nil {
		return
	}
	for _, w := range b.files {
		if err == nil && m.fatal == nil {
			m.check(w.path, m.publish(w))
		}
		if w.file != nil {
			m.check(w.path, inVault(w.file.Close()))
		}
		w.to.dir.Release()
	}
	if err != nil {
		m.check(b.files[0].path, inVault(fmt.Errorf("make durable: %w", err)))
	}
	m.finishDirs(b.left)
}

// publish gives a durable file its name, in place of what has it.
func (m *Import) publish(w whole) error {
	d, to := w.to.dir, w.to.name
	e, err := d.Adopt(to, w.to.entry, m.partials.dir, w.stem+partSuffix, true)
	if err == nil && w.large {
		err = m.partials.drop(w.stem) // the record
	}
	if err != nil {
		return inVault(err)
	}
	m.counters.files.Add(1)
	if w.links {
		m.rememberIdentity(d, to, e, w.ident)
	}
	return nil
}
