package check

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// LostFound is the plain name of the directory in the root that takes what cannot stay where it is.
const LostFound = "lost+found"

func (r *repairer) carry(to disk.File, toID keys.ObjectID, from disk.File, fromID keys.ObjectID) ([]string, error) {
	if r.Attrs == nil {
		return nil, nil
	}
	return r.Attrs.Carry(to, xattrs.Object{ID: toID}, from, xattrs.Object{ID: fromID})
}

// remove removes a file that an interrupted repair was building. Whatever it was to replace is replaced, or still has its name.
func (r *repairer) remove(o *object) (Action, error) {
	a := Action{Result: Removed, What: "left by an interrupted repair"}
	if r.Tree == nil {
		return a, nil
	}
	d, err := r.dir(o.at)
	if err != nil {
		return Action{}, err
	}
	defer d.Release()
	return a, errors.Join(unlink(d, o.link.Name), d.Sync())
}

// finish opens a file for writing, which puts right what an unclean session left of header and length. A file without a header becomes an empty one by that, so that
// what still opens of it is saved first.
func (r *repairer) finish(ctx context.Context, o *object) (Action, error) {
	if o.link.Type == names.File {
		h, err := r.open(o)
		if err != nil {
			return Action{}, err
		}
		w, got, _, err := r.survey(ctx, h, o.link.ID, o.link.Geometry)
		h.Close()
		switch {
		case err != nil:
			return Action{}, err
		case w.Headless() && (got.Frames > 0 || !damageOnly(got)):
			return r.rebuild(ctx, o)
		case w.Headless() && o.st.Size > container.BlockSize:
			return Action{}, nil // something was there: whoever writes to the file decides that it may go
		}
	}
	a := Action{Result: Finished, What: "header and length were put right"}
	if r.Tree == nil {
		return a, nil
	}
	d, err := r.hostDir(o.at)
	if err != nil {
		return Action{}, err
	}
	defer d.Close()
	h, err := d.Open(o.host, disk.ReadWrite)
	if err != nil {
		return Action{}, err
	}
	f, err := r.Engine.Open(h, o.link.ID, container.OpenOptions{MayLackHeader: r.mayLackHeader(o), Object: objectKind(o.link.Type)})
	if err != nil {
		return Action{}, err
	}
	f.SetName(func() []string { return strings.Split(o.hostPath(), "/") }, d.Sync)
	err = f.Sync()
	return a, errors.Join(err, f.Close())
}

// separate gives the older of two files or symlinks under one id an id of its own, and makes one of two directories.
func (r *repairer) separate(ctx context.Context, t *trouble) (Action, error) {
	older, first := t.object, r.ids[t.object.link.ID].object // not that of the trouble: it may have an id of its own by now
	if first == nil || first.inode() == older.inode() {
		return Action{}, nil
	}
	if older.link.Type == names.Dir {
		return r.merge(ctx, older, first)
	}
	if first.link.Seq < older.link.Seq {
		older = first
	}
	var a Action
	var err error
	switch {
	case older.link.IsContainer():
		a, err = r.rebuild(ctx, older)
	case older.link.Type == names.Symlink:
		a, err = r.relink(older)
	default:
		return Action{Result: Kept, What: "two objects under one id: look at both, and remove one"}, nil
	}
	if a.Result == Rebuilt {
		a.What = "it has an id of its own now: " + a.What
	}
	if a.Result != "" {
		a.Path, a.Host = older.plainPath(), older.hostPath()
	}
	return a, err
}

// stray finds out what an object is whose name does not open where it lies, and moves it to lost+found.
func (r *repairer) stray(ctx context.Context, o *object) (Action, error) {
	for _, at := range r.places {
		l, err := r.Codec.Open(at.id, o.host)
		if err != nil {
			continue
		}
		if o.st.Mode&unix.S_IFMT != l.HostMode() {
			return Action{Result: Kept, What: "its name says that it is a " + l.Type.String()}, nil
		}
		return r.move(ctx, o, l, fmt.Sprintf("its name was sealed in %q", "/"+at.plainPath()))
	}
	switch o.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return r.strayFile(ctx, o)
	case unix.S_IFDIR:
		return r.strayDir(ctx, o)
	}
	return Action{Result: Kept, What: "nothing says what it is"}, nil
}

// strayFile moves a container that opens by what its header says.
func (r *repairer) strayFile(ctx context.Context, o *object) (Action, error) {
	h, err := r.open(o)
	if err != nil {
		return Action{}, err
	}
	id, g, kind, err := r.Engine.Whose(h)
	h.Close()
	if err != nil {
		return Action{Result: Kept, What: fmt.Sprintf("nothing says what it is: %v", err)}, nil
	}
	l := names.Link{Type: names.File, Geometry: g.ID, ID: id}
	if kind == container.ObjectSymlink {
		l.Type, l.Flags = names.Symlink, names.ContainerSymlink
	}
	return r.move(ctx, o, l, "its header says what it is")
}

// strayDir moves the containers below a directory whose id nobody knows. What else is in it stays: its names do not open.
func (r *repairer) strayDir(ctx context.Context, o *object) (Action, error) {
	at := &place{up: o.at, host: o.host}
	d, err := r.hostDir(at)
	if err != nil {
		return Action{}, err
	}
	defer d.Close()
	var below []*object
	err = d.List(func(host string, _ uint64, _ uint8) error {
		x := &object{at: at, host: host}
		if names.HasForm(host) && d.Stat(host, &x.st) == nil {
			below = append(below, x)
		}
		return nil
	})
	if err != nil {
		return Action{}, err
	}
	saved := 0
	for _, x := range below {
		a, err := r.stray(ctx, x)
		if err != nil {
			a = Action{Result: Kept, What: err.Error()}
		}
		a.Path, a.Host = o.at.plainPath(), x.hostPath()
		if a.Result != Kept {
			saved++
		}
		r.tell(a)
	}
	return Action{Result: Kept, What: fmt.Sprintf("a directory whose id nobody knows; %d objects in it were saved", saved)}, nil
}

// move gives an object that shows nowhere a name in lost+found; where its id is in use, a file is copied instead.
func (r *repairer) move(ctx context.Context, o *object, l names.Link, why string) (Action, error) {
	first, live := r.ids[l.ID]
	if live && first.ino == o.st.Ino && first.dev == o.st.Dev {
		return Action{Result: Kept, What: fmt.Sprintf("another name of %q; it can be removed", below(first.at.plainPath(), first.name))}, nil
	}
	switch {
	case (live || r.partial) && l.Type == names.File:
		return r.copy(ctx, o, l.ID, l.Geometry, why)
	case live:
		return Action{Result: Kept, What: fmt.Sprintf("its id is that of %q", below(first.at.plainPath(), first.name))}, nil
	case r.partial:
		return Action{Result: Kept, What: "the host could not read all of the tree, and its id may be in use"}, nil
	}
	name := l.Name
	if name == "" {
		name = l.ID.String()
	}
	a := Action{Result: Moved, To: below(LostFound, name), What: why}
	if r.Tree == nil {
		return a, nil
	}
	lf, err := r.lostFound()
	if err != nil {
		return Action{}, err
	}
	defer lf.Release()
	if _, err := lf.Lookup(name); err == nil {
		name = l.ID.String()
		a.To = below(LostFound, name)
	}
	from, err := r.hostDir(o.at)
	if err != nil {
		return Action{}, err
	}
	defer from.Close()
	e := dirs.Entry{Type: l.Type, ID: l.ID, Geometry: l.Geometry, Flags: l.Flags}
	if _, err := lf.Adopt(name, e, from, o.host, false); err != nil {
		return Action{}, err
	}
	r.ids[l.ID] = seen{at: &place{name: LostFound}, name: name, dev: o.st.Dev, ino: o.st.Ino}
	return a, errors.Join(lf.Sync(), from.Sync())
}

// misplaced copies a container that stands under the name of another object.
func (r *repairer) misplaced(ctx context.Context, o *object) (Action, error) {
	h, err := r.open(o)
	if err != nil {
		return Action{}, err
	}
	id, g, kind, err := r.Engine.Whose(h)
	h.Close()
	if err != nil || kind != container.ObjectFile || id == o.link.ID {
		return Action{Result: Kept, What: "its name and its header contradict each other"}, nil
	}
	return r.copy(ctx, o, id, g.ID, "it stands under the name of another file")
}

// copy saves what is left of a container, of the object id, as a new file in lost+found. What is there already was saved by an earlier run.
func (r *repairer) copy(ctx context.Context, o *object, id keys.ObjectID, geometry uint8, why string) (Action, error) {
	name := fmt.Sprintf("%s.%x", id, o.st.Ino)
	h, err := r.open(o)
	if err != nil {
		return Action{}, err
	}
	defer h.Close()
	w, got, a, err := r.survey(ctx, h, id, geometry)
	if err != nil || a.Result == Kept {
		return a, err
	}
	a.Result, a.To, a.What = Copied, below(LostFound, name), why
	if r.Tree == nil {
		return a, nil
	}
	lf, err := r.lostFound()
	if err != nil {
		return Action{}, err
	}
	defer lf.Release()
	if _, err := lf.Lookup(name); err == nil {
		a.Result, a.What = Kept, "a copy of it is in "+a.To
		return a, nil
	}
	temp := r.tempName()
	lost, err := r.build(ctx, lf, temp, names.File, w, got.Frames, h, id)
	if err != nil {
		return Action{}, err
	}
	if _, _, err := r.Tree.Rename(lf, temp, lf, name, unix.RENAME_NOREPLACE); err != nil {
		return Action{}, errors.Join(err, unlink(lf, temp))
	}
	a.What += lost
	return a, lf.Sync()
}

// lostFound answers the directory with a reference; it is made where it is missing.
func (r *repairer) lostFound() (*dirs.Dir, error) {
	root := r.Tree.Root()
	e, err := root.Lookup(LostFound)
	if errors.Is(err, unix.ENOENT) {
		if e, err = root.Mkdir(LostFound, 0o700, -1, -1); err == nil {
			err = root.Sync()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", LostFound, err)
	}
	return root.Child(LostFound, e.ID)
}
