package integration

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The steps of a crashRun that change names.

// anything answers a file, symlink or directory that has a name.
func (r *crashRun) anything() *object {
	switch r.rng.IntN(6) {
	case 0:
		return pick(r, r.links)
	case 1:
		if d := pick(r, r.dirs); d != r.root {
			return d
		}
	}
	return pick(r, r.files)
}

func (r *crashRun) rename() error {
	o := r.anything()
	if o == nil {
		return nil
	}
	from, to := pick(r, o.names()), r.anySlot()
	flags := uint32(0)
	if r.rng.IntN(6) == 0 {
		flags = unix.RENAME_EXCHANGE
		if x := r.anything(); x != nil {
			to = pick(r, x.names())
		}
	}
	return r.renameTo(from, to, flags)
}

func (r *crashRun) renameTo(from, to *slot, flags uint32) error {
	o, target := from.held.now(), to.held.now()
	exchange := flags == unix.RENAME_EXCHANGE
	switch {
	case o == target, o.above(to.dir), target != nil && target.above(from.dir), exchange && target == nil:
		return nil
	case target != nil && !exchange && (target.dir != o.dir || target.dir && len(target.held()) > 0):
		return nil
	}
	if _, err := r.resolve(from); err != nil {
		return err
	}
	if target != nil {
		if _, err := r.resolve(to); err != nil {
			return err
		}
	}
	sd, err := r.node(from.dir)
	if err != nil {
		return err
	}
	dd, err := r.node(to.dir)
	if err != nil {
		return err
	}
	r.event(fmt.Sprintf("rename %s, %s, to %s, %s, flags %d", from, o, to, target, flags), func(ev int) {
		if err = r.k.rename(sd, from.name, dd, to.name, flags); err != nil {
			return
		}
		changes := map[*slot]*object{from: nil, to: o}
		if exchange {
			changes[from] = target
			from.exchanges, to.exchanges = append(from.exchanges, ev), append(to.exchanges, ev)
		}
		r.put(ev, changes)
	})
	r.prune()
	return wrapStep("rename", err)
}

// above reports whether o is d or has d below it.
func (o *object) above(d *object) bool {
	for o != d && len(d.moves) > 0 {
		d = d.names()[0].dir
	}
	return o == d
}

// held answers the names that a directory has now.
func (o *object) held() (all []*slot) {
	for _, s := range o.slots {
		if s.held.now() != nil {
			all = append(all, s)
		}
	}
	return all
}

// prune forgets what has no name any more.
func (r *crashRun) prune() {
	for _, list := range []*[]*object{&r.files, &r.dirs, &r.links} {
		*list = slices.DeleteFunc(*list, func(o *object) bool {
			gone := o != r.root && o.links.now() == 0
			if gone && o.opens == 0 && o.node != 0 {
				r.k.forget(o.node)
				o.forget()
			}
			return gone
		})
	}
}

func (r *crashRun) link() error {
	o := pick(r, r.files)
	if o == nil {
		return nil
	}
	s, dir, err := r.free()
	if s == nil || err != nil {
		return err
	}
	node, err := r.node(o)
	if err != nil {
		return err
	}
	r.event(fmt.Sprintf("link %s to %s", o, s), func(ev int) {
		if err = r.k.link(node, dir, s.name); err == nil {
			r.put(ev, map[*slot]*object{s: o})
		}
	})
	return wrapStep("link", err)
}

func (r *crashRun) unlink() error {
	o := r.anything()
	if o == nil || o.dir {
		return nil
	}
	return r.remove(pick(r, o.names()), r.k.unlink)
}

func (r *crashRun) rmdir() error {
	d := pick(r, r.dirs)
	if d == r.root || len(d.held()) > 0 {
		return nil
	}
	return r.remove(d.names()[0], r.k.rmdir)
}

func (r *crashRun) remove(s *slot, call func(uint64, string) error) error {
	if _, err := r.resolve(s); err != nil {
		return err
	}
	dir, err := r.node(s.dir)
	if err != nil {
		return err
	}
	r.event(fmt.Sprintf("remove %s, %s", s, s.held.now()), func(ev int) {
		if err = call(dir, s.name); err == nil {
			r.put(ev, map[*slot]*object{s: nil})
		}
	})
	r.prune()
	return wrapStep("remove", err)
}

func (r *crashRun) mkdir() error {
	s, dir, err := r.free()
	if s == nil || err != nil || len(r.dirs) > 5 {
		return err
	}
	r.event(fmt.Sprintf("mkdir %s", s), func(ev int) {
		node, a, merr := r.k.mkdir(dir, s.name)
		if err = merr; err != nil {
			return
		}
		d := &object{born: ev, ino: a.Ino, node: node, dir: true, slots: map[string]*slot{}}
		d.mode.set(ev, a.Mode&0o7777)
		r.byIno[a.Ino] = d
		r.put(ev, map[*slot]*object{s: d})
		r.dirs = append(r.dirs, d)
	})
	return wrapStep("mkdir", err)
}

func (r *crashRun) symlink() error {
	s, dir, err := r.free()
	if s == nil || err != nil || len(r.links) > 3 {
		return err
	}
	target := strings.Repeat("t", 1+r.rng.IntN(100))
	r.event(fmt.Sprintf("symlink %s", s), func(ev int) {
		node, a, serr := r.k.symlink(dir, target, s.name)
		if err = serr; err != nil {
			return
		}
		l := &object{born: ev, ino: a.Ino, node: node, target: target}
		r.byIno[a.Ino] = l
		r.put(ev, map[*slot]*object{s: l})
		r.links = append(r.links, l)
	})
	return wrapStep("symlink", err)
}
