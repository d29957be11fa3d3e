package disktest

import (
	"maps"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"
)

// attrs are what stat tells of an object beside its size and place.
type attrs struct {
	mode                uint32 // type and permissions
	uid, gid            int
	atime, mtime, ctime int64             // ns since 1970
	xattrs              map[string]string // never changed, only replaced
}

// inode is an object of a Memory, as it is (live) and as it is on stable storage.
type inode struct {
	ino, rdev uint64
	birth     int64
	target    string // of a symlink; stable with the name, like all that an object is made with

	live, stable attrs
	versions     []version // attributes between stable and live, oldest first

	data, stableData *content
	writes           []dataChange // what lies between stableData and data, oldest first

	names, stableNames map[string]uint64 // of a directory
	parent             uint64            // of a directory
	links              int               // live ones
	nameless           bool              // it never had a name
}

type version struct {
	seq uint64
	attrs
}

type changeKind uint8

const (
	putData changeKind = iota
	setSize
	punchHole
)

// dataChange is one change of a file's data that is not stable.
type dataChange struct {
	seq    uint64
	kind   changeKind
	off, n int64  // n is the new length of setSize
	data   []byte // of putData
	at     int64  // when, ns since 1970
	lost   bool   // a sync of it failed: no later one makes it stable
}

func (i *inode) clone() *inode {
	c := *i
	c.versions, c.writes = slices.Clone(i.versions), slices.Clone(i.writes)
	if i.data != nil {
		c.data, c.stableData = i.data.clone(), i.stableData.clone()
	}
	c.names, c.stableNames = maps.Clone(i.names), maps.Clone(i.stableNames)
	return &c
}

func (i *inode) is(kind uint32) bool { return i.live.mode&unix.S_IFMT == kind }

func (i *inode) stat(st *unix.Stat_t) {
	*st = unix.Stat_t{}
	st.Dev, st.Ino, st.Mode, st.Rdev = 0xc0ff, i.ino, i.live.mode, i.rdev
	st.Uid, st.Gid = uint32(i.live.uid), uint32(i.live.gid)
	assign(&st.Nlink, i.links)
	assign(&st.Blksize, pageSize)
	st.Atim, st.Mtim, st.Ctim = unix.NsecToTimespec(i.live.atime), unix.NsecToTimespec(i.live.mtime), unix.NsecToTimespec(i.live.ctime)
	switch {
	case i.data != nil:
		st.Size, st.Blocks = i.data.size, i.data.pages()*(pageSize/512)
	case i.names != nil:
		st.Size = pageSize
	default:
		st.Size = int64(len(i.target))
	}
}

// assign sets a field that has another type on each architecture.
func assign[T int32 | int64 | uint32 | uint64](p *T, n int) { *p = T(n) }

// syncData makes data and length stable. A new length takes the attributes along: on the host they are one record.
func (i *inode) syncData() {
	if len(i.writes) == 0 {
		return
	}
	old := i.stableData.size
	if slices.ContainsFunc(i.writes, func(w dataChange) bool { return w.lost }) {
		i.stableData = i.contentWith(len(i.writes), func(w *dataChange, _ int64) bool { return !w.lost }, pageSize)
		i.writes = slices.DeleteFunc(i.writes, func(w dataChange) bool { return !w.lost || w.kind != putData })
	} else {
		i.stableData, i.writes = i.data.clone(), nil
	}
	if old != i.data.size {
		i.syncAttrs()
	}
}

// syncRange makes the data of a range stable, and nothing else: not beyond the stable length, and nothing where a length, cut or hole that is not stable
// comes before.
func (i *inode) syncRange(off, n int64) {
	if off+n > i.stableData.size || slices.ContainsFunc(i.writes, func(w dataChange) bool { return w.kind != putData }) {
		return
	}
	b := make([]byte, n)
	i.data.read(b, off)
	i.stableData.put(b, off)
	var rest []dataChange
	for _, w := range i.writes {
		if before := w; w.off < off {
			before.n = min(w.n, off-w.off)
			before.data = w.data[:before.n]
			rest = append(rest, before)
		}
		if behind, end := w, off+n; w.off+w.n > end {
			behind.off = max(w.off, end)
			behind.n = w.off + w.n - behind.off
			behind.data = w.data[behind.off-w.off:]
			rest = append(rest, behind)
		}
	}
	i.writes = rest
}

func (i *inode) syncAttrs() { i.stable, i.versions = i.live, nil }

// loseWrites is what a failed sync does: the pages count as clean, and no later sync writes them.
func (i *inode) loseWrites() {
	for k := range i.writes {
		i.writes[k].lost = true
	}
}

// contentWith answers the stable content with some of the writes in it: the lengths, cuts and holes of the first meta of them, and the data that keep
// chooses by the unit it lies in. Where a cut or hole was not kept, later data of its range is on blocks that nobody finds.
func (i *inode) contentWith(meta int, keep func(w *dataChange, unit int64) bool, unit int64) *content {
	type span struct{ from, to int64 }
	c := i.stableData.clone()
	var unmapped []span
	size := c.size
	for k := range i.writes {
		w := &i.writes[k]
		switch w.kind {
		case putData:
			eachUnit(w.off, w.n, unit, func(at, n int64) {
				gone := slices.ContainsFunc(unmapped, func(s span) bool { return at < s.to && at+n > s.from })
				if !gone && keep(w, at/unit) {
					c.put(w.data[at-w.off:][:n], at)
				}
			})
			if k < meta {
				size = max(size, w.off+w.n)
			}
		case setSize:
			if k < meta {
				c.cut(w.n)
				size = w.n
			} else {
				unmapped = append(unmapped, span{w.n, maxFileSize + pageSize})
			}
		case punchHole:
			if k < meta {
				c.zero(w.off, w.n)
			} else {
				unmapped = append(unmapped, span{w.off, w.off + w.n})
			}
		}
	}
	c.cut(size)
	c.size = size
	return c
}

// cut makes the inode what is left of it by a loss of power; p is the point of models that keep a prefix.
func (i *inode) cut(l Loss, p prefix, rng *rand.Rand) {
	meta := 0
	if i.data != nil {
		meta = i.cutData(l.Data, p, rng)
	}
	n := 0 // versions that are kept
	switch l.Data {
	case KeepData, SizesAhead:
		i.syncAttrs()
	case Sectors512, Sectors4K:
		n = rng.IntN(len(i.versions) + 1)
	case TornPrefix:
		for n < len(i.versions) && i.versions[n].seq < p.at {
			n++
		}
	}
	if n > 0 {
		i.stable = i.versions[n-1].attrs
	}
	if meta > 0 { // the time of a change of length comes with it
		at := i.writes[meta-1].at
		i.stable.mtime, i.stable.ctime = max(i.stable.mtime, at), max(i.stable.ctime, at)
	}
	i.live, i.versions, i.writes = i.stable, nil, nil
	if i.data != nil {
		i.data = i.stableData.clone()
	}
}

// cutData answers how many writes had their lengths, cuts and holes kept.
func (i *inode) cutData(l DataLoss, p prefix, rng *rand.Rand) (meta int) {
	keep := func(*dataChange, int64) bool { return false }
	unit := int64(512)
	switch l {
	case KeepData:
		i.stableData = i.data
		return len(i.writes)
	case Sectors512, Sectors4K:
		if l == Sectors4K {
			unit = pageSize
		}
		// A sector holds what some number of the writes to it left, none and all being the likely ones.
		few, many := uint64(0), uint64(1<<63)
		drop, all := rng.Float64(), rng.Float64()
		upTo := map[int64]uint64{}
		keep = func(w *dataChange, u int64) bool {
			limit, drawn := upTo[u]
			if !drawn {
				switch {
				case rng.Float64() < drop:
					limit = few
				case rng.Float64() < all:
					limit = many
				default:
					limit = i.writes[rng.IntN(len(i.writes))].seq
				}
				upTo[u] = limit
			}
			return w.seq < limit
		}
		meta = rng.IntN(len(i.writes) + 1)
	case TornPrefix:
		for meta < len(i.writes) && i.writes[meta].seq < p.at {
			meta++
		}
		keep = func(w *dataChange, u int64) bool {
			return w.seq < p.at || w.seq == p.at && u-w.off/unit < p.torn
		}
	case SizesAhead:
		meta = len(i.writes)
	}
	i.stableData = i.contentWith(meta, keep, unit)
	return meta
}
