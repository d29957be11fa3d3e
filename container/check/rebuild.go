package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// rebuild puts what is left of a file in its place.
func (r *repairer) rebuild(ctx context.Context, o *object) (Action, error) {
	if r.done[o.inode()] {
		return Action{}, nil
	}
	h, err := r.open(o)
	if err != nil {
		return Action{}, err
	}
	defer h.Close()
	w, got, a, err := r.survey(ctx, h, o.link.ID, o.link.Geometry)
	if err != nil || a.Result == Kept {
		return a, err
	}
	if o.link.Type == names.Symlink && len(a.Lost) > 0 {
		return Action{Result: Kept, What: "the target of a symlink is lost"}, nil
	}
	if !damageOnly(got) {
		// It may be read tomorrow, or from another disk: nothing of the original is to go.
		return r.copy(ctx, o, o.link.ID, o.link.Geometry, "the host cannot read all of it, and the original stays")
	}
	a.Result = Rebuilt
	a.What = fmt.Sprintf("%d bytes saved, %d lost", got.Bytes, got.LostBytes())
	all := r.namesOf(o)
	if r.Tree != nil {
		lost, err := r.replace(ctx, o, all, w, got.Frames, h)
		if err != nil {
			return Action{}, err
		}
		a.What += lost
	}
	r.done[o.inode()] = true
	r.release(o)
	return a, nil
}

// damageOnly reports whether all that is lost is so because stored bytes are wrong, and not because the host could not read them.
func damageOnly(got container.Checked) bool {
	return !slices.ContainsFunc(got.Lost, func(l container.LostRange) bool { return !container.IsDamage(l.Err) })
}

// replace builds a new file of what is left of h, and has it take over all names of o.
func (r *repairer) replace(ctx context.Context, o *object, all []*object, w *container.Wreck, frames uint64, h disk.File) (lost string, err error) {
	d, err := r.dir(o.at)
	if err != nil {
		return "", err
	}
	defer d.Release()
	temp := r.tempName()
	if lost, err = r.build(ctx, d, temp, o.link.Type, w, frames, h, o.link.ID); err != nil {
		return "", err
	}
	defer func() { _ = unlink(d, temp) }() // a later run finds what is left
	if err := r.saveLosers(ctx, o); err != nil {
		return "", err
	}
	for _, name := range all {
		if err := r.supersede(name, d, temp); err != nil {
			return "", fmt.Errorf("%q: %w", name.plainPath(), err)
		}
	}
	return lost, nil
}

// release notes that a host file is no longer under its id, which may now be free for a copy of it that lies elsewhere.
func (r *repairer) release(o *object) {
	id := o.link.ID
	if first := r.ids[id]; first.dev != o.st.Dev || first.ino != o.st.Ino {
		return
	}
	delete(r.ids, id)
	for _, x := range r.more[id] {
		if x.inode() != o.inode() && !r.done[x.inode()] {
			r.ids[id] = seen{at: x.at, name: x.link.Name, dev: x.st.Dev, ino: x.st.Ino, object: x}
			return
		}
	}
}

// namesOf are all names of a host file, o itself first.
func (r *repairer) namesOf(o *object) []*object {
	all := []*object{o}
	for _, x := range append(r.more[o.link.ID], r.ids[o.link.ID].object) {
		if x != nil && x != o && x.inode() == o.inode() {
			all = append(all, x)
		}
	}
	return all
}

// saveLosers moves the older links under a name to lost+found: they may be what a damaged file was before, and go when the name is taken over.
func (r *repairer) saveLosers(ctx context.Context, o *object) error {
	for _, l := range o.losers {
		if l.link.Type != names.File {
			continue
		}
		a, err := r.move(ctx, l, l.link, fmt.Sprintf("an older file under the name of %q", o.plainPath()))
		if err != nil {
			return err
		}
		a.Path, a.Host = l.plainPath(), l.hostPath()
		r.tell(a)
	}
	return nil
}

func (r *repairer) supersede(o *object, src *dirs.Dir, temp string) error {
	d, err := r.dir(o.at)
	if err != nil {
		return err
	}
	defer d.Release()
	e, err := d.Lookup(o.link.Name)
	if err != nil {
		return err
	}
	if e.ID != o.link.ID {
		return dirs.ErrStale
	}
	return d.Supersede(o.link.Name, src, temp)
}

// survey finds out what can be saved of a container; Kept where that is nothing.
func (r *repairer) survey(ctx context.Context, h disk.File, id keys.ObjectID, geometry uint8) (*container.Wreck, container.Checked, Action, error) {
	g, err := container.GeometryByID(geometry)
	if err != nil {
		return nil, container.Checked{}, Action{}, err
	}
	w, err := r.Engine.Wreck(h, id, g)
	if err != nil {
		return nil, container.Checked{}, Action{}, err
	}
	got, err := w.Save(ctx, nil, nil)
	if err != nil {
		return nil, got, Action{}, err
	}
	var a Action
	for _, l := range got.Lost {
		if l.From == l.To {
			continue
		}
		if n := len(a.Lost); n > 0 && a.Lost[n-1].To >= l.From {
			a.Lost[n-1].To = max(a.Lost[n-1].To, l.To)
			continue
		}
		a.Lost = append(a.Lost, Range{l.From, l.To, got.Size})
	}
	if got.Frames == 0 && (w.Headless() || len(got.Lost) > 0) {
		a.Result, a.What = Kept, "nothing of it opens: restore it from a backup, or remove it"
		if !damageOnly(got) {
			a.What = "the host cannot read it: copy the vault to a sound disk first"
		}
	}
	return w, got, a, nil
}

func (r *repairer) tempName() string { return fmt.Sprintf("%s%016x", tempPrefix, rand.Uint64()) }

// build makes a new container called name in d of what is left of h, which is that many frames, durable with its name, and returns what else was lost.
func (r *repairer) build(ctx context.Context, d *dirs.Dir, name string, typ names.Type, w *container.Wreck, frames uint64, h disk.File, id keys.ObjectID) (lost string, err error) {
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return "", err
	}
	eng, err := r.Engine.Builder(w.Geometry())
	if err != nil {
		return "", err
	}
	to, e, err := d.CreateContainer(name, typ, w.Geometry().ID, st.Mode&0o7777, -1, -1)
	if err != nil {
		return "", err
	}
	f, err := eng.Create(to, e.ID, objectKind(typ))
	if err != nil {
		to.Close()
		return "", errors.Join(err, unlink(d, name))
	}
	lost, err = r.fill(ctx, f, w, frames, h, &st, id)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return "", errors.Join(err, unlink(d, name))
	}
	return lost, nil
}

func unlink(d *dirs.Dir, name string) error {
	_, err := d.Unlink(name)
	return err
}

// fill gives a new file the content and the attributes of h, durably.
func (r *repairer) fill(ctx context.Context, f *container.File, w *container.Wreck, frames uint64, h disk.File, st *unix.Stat_t, id keys.ObjectID) (lost string, err error) {
	saved, err := w.Save(ctx, f, nil)
	if err == nil && saved.Frames != frames {
		err = fmt.Errorf("%d frames could be read, and %d a moment ago", saved.Frames, frames)
	}
	if err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	to := f.Host()
	var now unix.Stat_t
	if err := to.Stat(&now); err != nil {
		return "", err
	}
	if now.Uid != st.Uid || now.Gid != st.Gid {
		if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return "", err
		}
	}
	attrs, err := r.carry(to, f.ID(), h, id)
	if err != nil {
		return "", err
	}
	if err := to.Chmod(st.Mode & 0o7777); err != nil {
		return "", err
	}
	if err := to.Utimes(&[2]unix.Timespec{st.Atim, st.Mtim}); err != nil {
		return "", err
	}
	if len(attrs) > 0 {
		lost = "; extended attributes that are lost: " + strings.Join(attrs, ", ")
	}
	return lost, to.Sync()
}
