package dirs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// loading is one pass over a host directory.
type loading struct {
	d        *Dir
	fd       disk.Dir
	links    map[string]link
	rivals   map[string][]link // all links of a name that has several
	sidecars map[string]bool   // false: no object for it was seen yet
	hidden   int
	maxSeq   uint64
}

// load reads the host directory into the map. d.mu is held for writing. Each finding is reported once per load.
func (d *Dir) load() error {
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer d.unpin()
	type hostName struct {
		name string
		typ  uint8
	}
	var all []hostName
	err = fd.List(func(name string, _ uint64, typ uint8) error {
		all = append(all, hostName{name, typ})
		return nil
	})
	if err != nil {
		return fmt.Errorf("dirs: directory %s: %w", d.id, err)
	}
	l := loading{d: d, fd: fd, links: make(map[string]link, len(all)), rivals: make(map[string][]link), sidecars: make(map[string]bool)}
	for _, h := range all {
		if names.IsSidecar(h.name) {
			l.sidecars[h.name] = false
		}
	}
	for _, h := range all {
		if _, sidecar := l.sidecars[h.name]; sidecar || d == d.t.root && h.name == configDir {
			continue
		}
		if err := l.add(h.name, h.typ); err != nil {
			return err
		}
	}
	for name, used := range l.sidecars {
		if !used {
			l.report(event.Foreign, name, nil, "sidecar without its object")
		}
	}
	l.publish()
	return nil
}

func (l *loading) report(kind event.Kind, host string, err error, note string) {
	l.d.t.cfg.Events.Emit(event.Event{Kind: kind, Object: host, Offset: -1, Err: err, Note: note})
}

// add enters one host name. An error is one of the host that says nothing about the name; what is wrong with a name is
// reported, and the name left out.
func (l *loading) add(host string, typ uint8) error {
	n, err := l.d.t.cfg.Codec.Open(l.d.id, host)
	if err == nil {
		l.maxSeq = max(l.maxSeq, n.Seq)
		err = l.verify(host, typ, &n)
	}
	switch {
	case err == nil:
		l.enter(n)
		return nil
	case errors.Is(err, errVanished):
		return nil
	case errors.Is(err, names.ErrForeign) && names.HasForm(host):
		l.report(event.Damage, host, err, "sealed elsewhere or changed; name hidden")
	case errors.Is(err, names.ErrForeign):
		l.report(event.Foreign, host, nil, "")
	case errors.Is(err, names.ErrBadName), errors.Is(err, ErrName):
		l.report(event.Damage, host, err, "name hidden")
	default:
		return fmt.Errorf("dirs: directory %s: %w", l.d.id, err)
	}
	if typ == unix.DT_DIR {
		l.hidden++
	}
	return nil
}

// errVanished: the host object went away while the directory was being read.
var errVanished = errors.New("vanished")

// verify compares an authentic name with its host object and completes a long one.
func (l *loading) verify(host string, typ uint8, n *names.Link) error {
	mode := uint32(typ) << 12 // IFTODT(3) backwards
	if typ == unix.DT_UNKNOWN {
		var st unix.Stat_t
		switch err := l.fd.Stat(host, &st); {
		case errors.Is(err, unix.ENOENT):
			return errVanished
		case err != nil:
			return err
		}
		mode = st.Mode & unix.S_IFMT
	}
	if mode != n.HostMode() {
		return fmt.Errorf("%w: a %s of host mode %o", ErrName, n.Type, mode)
	}
	if !n.IsLong() {
		return nil
	}
	l.sidecars[names.SidecarName(host)] = true
	return l.d.t.cfg.Codec.ReadLong(l.fd, l.d.id, host, n)
}

func (l *loading) enter(n names.Link) {
	k := link{id: n.ID, seq: n.Seq, typ: n.Type, geometry: n.Geometry, flags: n.Flags &^ names.Long}
	if k.typ == names.Dir {
		l.hidden++ // until its name shows
	}
	first, taken := l.links[n.Name]
	if !taken {
		l.links[n.Name] = k
		return
	}
	if len(l.rivals[n.Name]) == 0 {
		l.rivals[n.Name] = append(l.rivals[n.Name], first)
	}
	l.rivals[n.Name] = append(l.rivals[n.Name], k)
}

// publish decides which of several links shows and publishes the map.
func (l *loading) publish() {
	d, t := l.d, l.d.t
	losers := make(map[string][]link, len(l.rivals))
	for name, all := range l.rivals {
		l.links[name], losers[name] = names.Winner(all, func(n link) names.Link { return n.open(name) }, func(n link) bool {
			return t.cfg.Headerless != nil && t.cfg.Headerless(n.open(name), l.fd, d.hostName(name, n))
		})
		for _, n := range losers[name] {
			l.report(event.Loser, d.hostName(name, n), nil, "")
		}
	}
	for _, n := range l.links {
		if n.typ == names.Dir {
			l.hidden--
		}
	}
	d.links, d.losers, d.hidden = l.links, nil, l.hidden
	t.links.Add(int64(len(d.links)))
	t.loaded.Add(1)
	for name, all := range losers {
		for _, n := range all {
			d.addLoser(name, n)
		}
	}
	if l.maxSeq > 0 && t.cfg.SawSeq != nil {
		t.cfg.SawSeq(l.maxSeq)
	}
	d.used.Store(t.clock.Add(1))
	t.trim(d)
}

// addLoser and dropLoser keep the counts that go with a loser, but for hidden. d.mu is held for writing.
func (d *Dir) addLoser(name string, n link) {
	if d.losers == nil {
		d.losers = make(map[string][]link)
	}
	d.losers[name] = append(d.losers[name], n)
	d.t.links.Add(1)
	d.t.countLoser(n, 1)
}

func (d *Dir) dropLoser(name string, n link) {
	all := d.losers[name]
	if i := slices.Index(all, n); i >= 0 {
		all = slices.Delete(all, i, i+1)
		d.t.links.Add(-1)
		d.t.countLoser(n, -1)
	}
	if len(all) == 0 {
		delete(d.losers, name)
	} else {
		d.losers[name] = all
	}
}

func (t *Tree) countLoser(n link, by int) {
	if n.typ == names.Dir {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.haveLosers.Store(true)
	if t.loserLinks[n.id] += by; t.loserLinks[n.id] == 0 {
		delete(t.loserLinks, n.id)
	}
}

// dropMap forgets the map; the next use loads it again. d.mu is held for writing.
func (d *Dir) dropMap() {
	if d.links == nil {
		return
	}
	for name, all := range d.losers {
		for _, n := range slices.Clone(all) {
			d.dropLoser(name, n)
		}
	}
	d.t.links.Add(-int64(len(d.links)))
	d.t.loaded.Add(-1)
	d.links, d.losers, d.hidden = nil, nil, 0
}

// trim drops maps, the one used longest ago first, until no more than MaxEntries links are kept. That of keep stays, and those in use.
func (t *Tree) trim(keep *Dir) {
	if t.links.Load() <= int64(t.cfg.MaxEntries) || t.loaded.Load() < 2 {
		return
	}
	type aged struct {
		d    *Dir
		used uint64
	}
	t.mu.Lock()
	old := make([]aged, 0, len(t.dirs))
	for _, d := range t.dirs {
		if d != keep {
			old = append(old, aged{d, d.used.Load()})
		}
	}
	t.mu.Unlock()
	slices.SortFunc(old, func(a, b aged) int { return cmp.Compare(a.used, b.used) })
	for _, a := range old {
		if t.links.Load() <= int64(t.cfg.MaxEntries) {
			return
		}
		// The caller holds keep's lock, so another one may only be tried.
		if a.d.mu.TryLock() {
			a.d.dropMap()
			a.d.mu.Unlock()
		}
	}
}
