package dirs

import (
	"fmt"
	"slices"

	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
)

// step is one host rename of an exchange.
type step struct {
	n          link
	from, to   *Dir
	ffd, tfd   disk.Dir
	old, new   string // host names
	sidecar    []byte // of new
	oldSidecar bool
}

// exchange swaps two objects in three host renames: by two, a crash between them would leave both under one name, and the older as its
// loser, to be removed. So one steps aside under a plain name of its own. Where there is an Intend the next mount finishes what a crash leaves.
func (r *renaming) exchange() (moved Entry, replaced *Entry, err error) {
	if err := r.src.removeLosers(r.sfd, r.old); err != nil {
		return Entry{}, nil, err
	}
	if err := r.dst.removeLosers(r.dfd, r.new); err != nil {
		return Entry{}, nil, err
	}
	aside, a, b := r.to, r.from, r.to
	if aside.seq, err = r.t.cfg.NextSeq(); err != nil {
		return Entry{}, nil, err
	}
	host := r.dst.hostName(fmt.Sprintf(".coffer-exchange-%016x", aside.seq), aside)
	aHost, aSidecar, err := r.dst.draw(r.new, &a)
	if err != nil {
		return Entry{}, nil, err
	}
	bHost, bSidecar, err := r.src.draw(r.old, &b)
	if err != nil {
		return Entry{}, nil, err
	}
	steps := []step{
		{n: b, from: r.dst, ffd: r.dfd, old: r.dst.hostName(r.new, r.to), to: r.dst, tfd: r.dfd, new: host,
			oldSidecar: r.to.open(r.new).IsLong()},
		{n: a, from: r.src, ffd: r.sfd, old: r.src.hostName(r.old, r.from), to: r.dst, tfd: r.dfd, new: aHost, sidecar: aSidecar,
			oldSidecar: r.from.open(r.old).IsLong()},
		{n: b, from: r.dst, ffd: r.dfd, old: host, to: r.src, tfd: r.sfd, new: bHost, sidecar: bSidecar},
	}
	if err := r.run(steps, aside.seq); err != nil {
		return Entry{}, nil, err
	}
	r.src.links[r.old], r.dst.links[r.new] = b, a
	e := b.entry(r.old)
	return a.entry(r.new), &e, nil
}

// run takes the steps with their sidecars, or undoes those taken when one fails. seq is the exchange's own.
func (r *renaming) run(steps []step, seq uint64) (err error) {
	placed := 0
	for _, s := range steps {
		if err = s.to.putSidecar(s.tfd, s.new, s.sidecar); err != nil {
			break
		}
		placed++
	}
	var over func(error)
	if err == nil {
		over, err = r.intend(steps, seq)
	}
	taken := 0
	for _, s := range steps {
		if err != nil {
			break
		}
		if err = r.t.moveHost(s.n, s.from, s.ffd, s.old, s.to, s.tfd, s.new); err == nil {
			taken++
		}
	}
	if err == nil {
		for _, s := range steps {
			s.from.dropSidecar(s.ffd, s.old, s.oldSidecar)
		}
		r.endIntent(over)
		return nil
	}
	for i := taken - 1; i >= 0; i-- {
		s := steps[i]
		if uerr := r.t.moveHost(s.n, s.to, s.tfd, s.new, s.from, s.ffd, s.old); uerr != nil {
			// What the host has now is neither the old state nor the new one: read it again. All sidecars stay, and the intent.
			s.to.failed(s.new, uerr, "undo an exchange")
			r.src.dropMap()
			r.dst.dropMap()
			if over != nil {
				over(uerr)
			}
			return r.dst.refused(err)
		}
	}
	for _, s := range steps[:placed] {
		s.to.dropSidecar(s.tfd, s.new, s.sidecar != nil)
	}
	r.endIntent(over)
	return r.dst.refused(err)
}

// intend makes the steps known before the first is taken, and before that the names durable that they begin with: what a crash takes back the next mount
// would take for something that came later. over is nil where nobody wants to know, or on an error.
func (r *renaming) intend(steps []step, seq uint64) (over func(error), err error) {
	if r.t.cfg.Intend == nil {
		return nil, nil
	}
	if err := r.sync(); err != nil {
		return nil, err
	}
	x := redo.Exchange{ID: seq}
	for _, s := range steps {
		x.Steps = append(x.Steps, redo.Step{From: s.from.hostPath(), To: s.to.hostPath(), Old: s.old, New: s.new})
	}
	return r.t.cfg.Intend(x.Append(nil))
}

// hostPath is the sealed names from the root's children down to the directory. Of one below a directory that is being moved it may be out of date at once.
func (d *Dir) hostPath() (path []string) {
	d.t.place.RLock()
	defer d.t.place.RUnlock()
	for ; d.parent != nil; d = d.parent {
		path = append(path, d.host)
	}
	slices.Reverse(path)
	return path
}

// endIntent ends the intent once the names are durable. Where they cannot be made so it stays, for the next mount: to take the steps again does no harm.
func (r *renaming) endIntent(over func(error)) {
	if over == nil {
		return
	}
	err := r.sync()
	if err != nil {
		r.dst.failed("", err, "make an exchange durable")
	}
	over(err)
}

// sync makes the names of both directories durable.
func (r *renaming) sync() error {
	if err := r.dfd.Sync(); err != nil || r.src == r.dst {
		return err
	}
	return r.sfd.Sync()
}
