package bulk

import (
	"fmt"
	"time"

	"github.com/cofferfs/coffer/container"
)

// whole is a file that has all of its bytes and attributes and waits to be durable and named.
type whole struct {
	to    name
	file  *container.File
	stem  string
	path  string // of the source
	ident identity
	links bool // the source has other names
	large bool // there may be a record
}

// settleBatch makes the files of the batch durable and then gives them their names.
func (m *Import) settleBatch() {
	batch := m.batch
	m.batch, m.pending, m.began = nil, 0, time.Now()
	defer m.settleDirs()
	if len(batch) == 0 {
		return
	}
	start := time.Now()
	var err error
	if len(batch) == 1 {
		err = batch[0].file.Host().Sync()
	} else {
		err = m.SyncOf()
	}
	m.counters.syncing.Add(int64(time.Since(start)))
	for _, w := range batch {
		if err == nil && m.fatal == nil {
			m.check(w.path, m.publish(w))
		}
		if cerr := w.file.Close(); cerr != nil {
			m.check(w.path, inVault(cerr))
		}
		w.to.dir.Release()
	}
	if err != nil {
		m.check(batch[0].path, inVault(fmt.Errorf("make durable: %w", err)))
	}
}

// publish gives a durable file its name, in place of what has it.
func (m *Import) publish(w whole) error {
	d, to := w.to.dir, w.to.name
	e, err := d.Adopt(to, m.partials.dir, w.stem+partSuffix, w.to.entry)
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
