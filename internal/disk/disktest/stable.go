package disktest

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// What of a state is stable: syncs, and what cuts leave.

// syncNames makes the changes of names that pick chooses stable, and those before them that they build on.
func (s *state) syncNames(pick func(nameChange) bool) {
	take := make([]bool, len(s.pending))
	needed := map[touched]bool{}
	for k, c := range slices.Backward(s.pending) {
		placed := !c.creates || slices.ContainsFunc(c.moved, func(ino uint64) bool { return needed[touched{ino, false}] })
		take[k] = pick(c) || slices.ContainsFunc(c.touches(), func(x touched) bool { return needed[x] })
		if !take[k] {
			continue
		}
		for _, x := range c.touches() {
			needed[x] = true
		}
		for _, x := range c.slots {
			if placed && x.ino != 0 {
				needed[touched{x.dir, false}] = true
			}
		}
		s.inOrder = max(s.inOrder, c.seq)
	}
	rest := s.pending[:0:0]
	for k, c := range s.pending {
		if !take[k] {
			rest = append(rest, c)
			continue
		}
		s.applyNames(c)
	}
	s.pending = rest
}

func (s *state) applyNames(c nameChange) {
	for _, x := range c.slots {
		if x.ino == 0 {
			delete(s.inodes[x.dir].stableNames, x.name)
		} else {
			s.inodes[x.dir].stableNames[x.name] = x.ino
		}
	}
}

// touched is an inode that a change is about, as the directory or as what is in it. Of two changes that touch the same, the later builds on
// the earlier. A change that gives an object that was there a new name also builds on what put the directory of that name in its place, or the
// object could be lost with a directory that nobody synced; a new object may be.
type touched struct {
	ino   uint64
	asDir bool
}

func (c nameChange) touches() (all []touched) {
	for _, x := range c.slots {
		all = append(all, touched{x.dir, true})
	}
	for _, ino := range c.moved {
		all = append(all, touched{ino, false})
	}
	if c.emptied != 0 {
		all = append(all, touched{c.emptied, true})
	}
	return all
}

// syncDir makes the names in a directory stable, and its attributes.
func (s *state) syncDir(dir uint64) {
	s.syncNames(func(c nameChange) bool {
		return slices.ContainsFunc(c.slots, func(x slot) bool { return x.dir == dir })
	})
	s.inodes[dir].syncAttrs()
}

func (s *state) syncAll() {
	s.syncNames(func(nameChange) bool { return true })
	for _, i := range s.inodes {
		i.syncData()
		i.syncAttrs()
	}
}

// cut makes the state what a loss of power leaves of it.
func (s *state) cut(l Loss, rng *rand.Rand) {
	p := s.prefix(rng)
	s.cutNames(l.Names, p, rng)
	for _, ino := range slices.Sorted(maps.Keys(s.inodes)) {
		i := s.inodes[ino]
		i.cut(l, p, rng)
		i.names = maps.Clone(i.stableNames)
	}
	s.mount()
	maps.DeleteFunc(s.inodes, func(_ uint64, i *inode) bool { return i.links == 0 })
}

// prefix is a point in the order of all changes that are not stable: those before it are kept, and of the data of the one at it the first torn units.
type prefix struct {
	at   uint64
	torn int64
}

func (s *state) prefix(rng *rand.Rand) prefix {
	var all []uint64
	for _, c := range s.pending {
		all = append(all, c.seq)
	}
	units := map[uint64]int64{}
	for _, i := range s.inodes {
		for _, w := range i.writes {
			all = append(all, w.seq)
			units[w.seq] = w.n/512 + 1
		}
		for _, v := range i.versions {
			all = append(all, v.seq)
		}
	}
	slices.Sort(all)
	p := prefix{at: s.seq + 1}
	if k := rng.IntN(len(all) + 1); k < len(all) {
		p.at = all[k]
	}
	p.torn = rng.Int64N(max(units[p.at], 1))
	return p
}

func (s *state) cutNames(l NameLoss, p prefix, rng *rand.Rand) {
	keep := func(nameChange) bool { return false }
	switch l {
	case KeepNames:
		keep = func(nameChange) bool { return true }
	case NamesInOrder:
		at := max(p.at, s.inOrder)
		keep = func(c nameChange) bool { return c.seq < at }
	case NamesByDirectory:
		upTo := map[uint64]uint64{}
		for _, c := range s.pending {
			for _, x := range c.slots {
				if _, drawn := upTo[x.dir]; !drawn {
					upTo[x.dir] = s.prefix(rng).at
				}
			}
		}
		keep = func(c nameChange) bool {
			return !slices.ContainsFunc(c.slots, func(x slot) bool { return c.seq >= upTo[x.dir] })
		}
	}
	lost := map[touched]bool{}
	for _, c := range s.pending {
		nowhere := slices.ContainsFunc(c.slots, func(x slot) bool { return x.ino != 0 && lost[touched{x.dir, false}] })
		if keep(c) && !nowhere && !slices.ContainsFunc(c.touches(), func(x touched) bool { return lost[x] }) {
			s.applyNames(c)
			continue
		}
		for _, x := range c.touches() {
			lost[x] = true
		}
	}
	s.pending = nil
}

// mount finds everything from the root: it counts links and pages anew. What has no links is not there any more.
func (s *state) mount() {
	for _, i := range s.inodes {
		i.links = 0
	}
	s.inodes[rootIno].links = 2
	s.used = 0
	for todo := []uint64{rootIno}; len(todo) > 0; todo = todo[1:] {
		d := s.inodes[todo[0]]
		for _, ino := range d.names {
			i := s.inodes[ino]
			switch {
			case i.names != nil:
				d.links++
				i.links, i.parent = 2, d.ino
				todo = append(todo, ino)
				continue
			case i.links == 0 && i.data != nil:
				s.used += i.data.pages()
			}
			i.links++
		}
	}
}

// sweep drops inodes that nothing leads to: no name, no stable name, no change of names that is not stable, no handle.
func (s *state) sweep(open map[uint64]int) {
	seen := map[uint64]bool{rootIno: true}
	for _, i := range s.inodes {
		for _, ino := range i.names {
			seen[ino] = true
		}
		for _, ino := range i.stableNames {
			seen[ino] = true
		}
	}
	for _, c := range s.pending {
		for _, ino := range c.moved {
			seen[ino] = true
		}
		for _, x := range c.slots {
			seen[x.dir], seen[x.ino] = true, true
		}
	}
	maps.DeleteFunc(s.inodes, func(ino uint64, _ *inode) bool { return !seen[ino] && open[ino] == 0 })
}
