package dirs

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// link is what a map keeps for a plain name: with the directory's id and the name, all that its sealed name says.
type link struct {
	id       keys.ObjectID
	seq      uint64
	typ      names.Type
	geometry uint8
	flags    names.Flags // without Long, which follows from the name's length
}

// Dir is a live directory. Its methods may be called concurrently while the caller holds a reference.
type Dir struct {
	t  *Tree
	id keys.ObjectID

	refs int // guarded by Tree.mu; children count

	parent *Dir   // see Tree.place; nil for the root and a removed directory
	host   string // sealed name in parent

	// mu guards the names of the directory, here and on the host: held for reading by calls that look, for writing by those that change.
	mu     sync.RWMutex
	links  map[string]link // nil: not loaded
	losers map[string][]link
	hidden int // host subdirectories without a plain name: st_nlink counts them

	gone atomic.Bool   // removed; written under mu
	used atomic.Uint64 // Tree.clock at the last use of the map

	last atomic.Pointer[sealedName] // was sealed last

	fd   disk.Dir // nil: closed. See descriptors
	pins int
	node *lruNode
}

// ID returns the directory id.
func (d *Dir) ID() keys.ObjectID { return d.id }

// sealedName is a link and its host name. Immutable.
type sealedName struct {
	name string
	link link
	host string
}

// hostName seals the name again; see doc.go. What was sealed last is remembered: a removal needs the host name twice, and requests come in turn that are about
// one name, as the LOOKUP and the OPEN of a file, or a RENAME and the SETATTR by which the kernel tells its ctime.
func (d *Dir) hostName(name string, n link) string {
	if s := d.last.Load(); s != nil && s.link == n && s.name == name {
		return s.host
	}
	host, _ := d.seal(name, n)
	return host
}

// seal answers the host name and, for a long name, the content of its sidecar.
func (d *Dir) seal(name string, n link) (host string, sidecar []byte) {
	host, sidecar = d.t.cfg.Codec.Seal(d.id, n.open(name))
	d.last.Store(&sealedName{name, n, host})
	return host, sidecar
}

// open is the link as the codec knows it.
func (n link) open(name string) names.Link {
	return names.Link{Type: n.typ, Geometry: n.geometry, Flags: n.flags, ID: n.id, Seq: n.seq, Name: name}
}

func (n link) entry(name string) Entry {
	return Entry{Name: name, Type: n.typ, ID: n.id, Geometry: n.geometry, Flags: n.flags, Seq: n.seq}
}

func linkOf(e Entry) link {
	return link{id: e.ID, seq: e.Seq, typ: e.Type, geometry: e.Geometry, flags: e.Flags}
}

// HostPath answers the sealed names from the vault's root down to an entry of d, nil where a directory above was removed. No I/O.
func (d *Dir) HostPath(e Entry) []string { return d.HostPaths(e)() }

// HostPaths is HostPath for who asks again and again: the entry's own name is sealed once.
func (d *Dir) HostPaths(e Entry) func() []string {
	host := sync.OnceValue(func() string {
		return d.hostName(e.Name, linkOf(e))
	})
	return func() []string { return d.downTo(host()) }
}

// downTo answers the sealed names from the root down to one in d.
func (d *Dir) downTo(host string) []string {
	path := []string{host}
	d.t.place.RLock()
	defer d.t.place.RUnlock()
	for ; d != d.t.root; d = d.parent {
		if d.parent == nil {
			return nil
		}
		path = append(path, d.host)
	}
	slices.Reverse(path)
	return path
}

// rlock takes mu for reading with the map loaded.
func (d *Dir) rlock() error {
	for {
		d.mu.RLock()
		if d.links != nil || d.gone.Load() {
			d.used.Store(d.t.clock.Add(1))
			return nil
		}
		d.mu.RUnlock()
		// Another directory's load may drop the map again between the two locks; then once more.
		if err := d.lock(); err != nil {
			return err
		}
		d.mu.Unlock()
	}
}

// lock takes mu for writing with the map loaded; a removed directory has none.
func (d *Dir) lock() error {
	d.mu.Lock()
	if d.links == nil && !d.gone.Load() {
		if err := d.load(); err != nil {
			d.mu.Unlock()
			return err
		}
	}
	d.used.Store(d.t.clock.Add(1))
	return nil
}

// lockAll locks several directories for writing, each once, in the order of doc.go. dirs is reordered; nil ones are left out.
func lockAll(dirs ...*Dir) (unlock func(), err error) {
	set := make([]*Dir, 0, len(dirs))
	for _, d := range dirs {
		if d == nil {
			continue
		}
		i := 0
		for i < len(set) && string(set[i].id[:]) < string(d.id[:]) {
			i++
		}
		if i < len(set) && set[i] == d {
			continue
		}
		set = append(set, nil)
		copy(set[i+1:], set[i:])
		set[i] = d
	}
	for i, d := range set {
		if err := d.lock(); err != nil {
			for _, e := range set[:i] {
				e.mu.Unlock()
			}
			return nil, err
		}
	}
	return func() {
		for _, d := range set {
			d.mu.Unlock()
		}
	}, nil
}

// checkName puts what the codec says of a plain name as the errno of the call that was given it.
func checkName(name string) error {
	switch err := names.CheckName(name); {
	case err == nil:
		return nil
	case errors.Is(err, names.ErrTooLong):
		return unix.ENAMETOOLONG
	}
	return unix.EINVAL
}
