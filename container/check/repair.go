package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

// RepairConfig says what a repair works on.
type RepairConfig struct {
	Config
	Tree *dirs.Tree   // on the same vault, opened for writing; nil: nothing is changed, and Done told what would be
	Done func(Action) // called for each thing that was looked at; may be nil
}

// Result is what became of something that was damaged. The values are stable.
type Result string

const (
	// Rebuilt: a new file with all that could be read took over the name.
	Rebuilt Result = "rebuilt"
	// Moved: the object lies in lost+found now.
	Moved Result = "moved"
	// Copied: what could be read of it lies in lost+found too.
	Copied Result = "copied"
	// Removed: it was a leftover.
	Removed Result = "removed"
	// Finished: what an unclean session had begun was brought to its end.
	Finished Result = "finished"
	// Kept: nothing could be done, and it is as it was.
	Kept Result = "kept"
)

// Action is one Result.
type Action struct {
	Result Result  `json:"kind"`
	Path   string  `json:"path,omitempty"`
	Host   string  `json:"host,omitempty"`
	To     string  `json:"to,omitempty"`   // plain path, of what was moved or copied
	Lost   []Range `json:"lost,omitempty"` // ranges of plain bytes that read as zeros now
	What   string  `json:"what,omitempty"`
}

// maxPasses is how often a repair looks at what it moved: the deepest tree that is mended level by level.
const maxPasses = 32

// Repair verifies the vault and then saves what it can of everything that is damaged. Nothing that can be read is changed: new files are built
// beside the old ones, synced, and take their names over at once. It can be interrupted at any point and run again. What cannot stay under its
// name goes to LostFound. sum is that of Verify, before anything was changed; kept counts what is damaged still.
//
// The error is that of ctx. Whatever else keeps one thing from being repaired is in its Action.
func Repair(ctx context.Context, cfg RepairConfig) (sum Summary, kept int, err error) {
	r := &repairer{RepairConfig: cfg, told: map[string]bool{}}
	for pass := 0; ; pass++ {
		var all []*trouble
		r.walked, r.done, r.troubled = new(walked), map[inode]bool{}, map[inode]bool{}
		r.moved, r.kept = false, 0
		if pass > 0 { // what was moved shows now, and may be damaged itself
			if r.Found, r.only = nil, LostFound; r.merged {
				r.only = "" // in any place
			}
		}
		got, err := verify(ctx, r.Config, r.walked, &all)
		if pass == 0 {
			sum = got
		}
		if err == nil {
			err = r.all(ctx, all)
		}
		kept += r.kept
		if err != nil || !r.moved || r.Tree == nil || pass == maxPasses {
			return sum, kept, err
		}
	}
}

// all looks at all troubles.
func (r *repairer) all(ctx context.Context, all []*trouble) error {
	slices.SortStableFunc(all, func(a, b *trouble) int { return int(a.what) - int(b.what) })
	for _, t := range all {
		if t.what != spoiled && t.what != unfinished {
			r.troubled[t.object.inode()] = true
		}
	}
	for _, t := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		a, err := r.one(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			a = Action{Result: Kept, What: fmt.Sprintf("it could not be repaired: %v", err)}
		}
		if a.Result == "" {
			continue
		}
		if a.Host == "" {
			a.Path, a.Host = t.path(), strings.TrimSuffix(t.object.hostPath(), "/")
		}
		r.tell(a)
	}
	return nil
}

// tell counts an action, and passes it on where that was not done before.
func (r *repairer) tell(a Action) {
	r.moved = r.moved || a.Result == Moved
	id := string(a.Result) + a.Host
	if r.told[id] {
		return
	}
	r.told[id] = true
	if a.Result == Kept || a.Result == Copied {
		r.kept++
	}
	if r.Done != nil {
		r.Done(a)
	}
}

// walked is what a repair has to know of the walk.
type walked struct {
	ids    map[keys.ObjectID]seen
	more   map[keys.ObjectID][]*object // further names of one object
	places []*place
	// partial: something of the tree was not seen, so that an id that nobody has may be in use all the same.
	partial bool
	only    string // contents below this path only; "": all
}

type inode struct{ dev, ino uint64 }

func (o *object) inode() inode { return inode{o.st.Dev, o.st.Ino} }

type repairer struct {
	RepairConfig
	*walked
	done     map[inode]bool  // rebuilt: no name leads to it any more
	troubled map[inode]bool  // with more than attributes
	told     map[string]bool // what Done was told, in earlier passes too
	merged   bool            // directories were: what was in one of them was not looked at
	moved    bool            // something shows that did not
	kept     int
}

// path is the plain path of the damaged object, or that of its directory.
func (t *trouble) path() string {
	if t.object.link.Name == "" || t.what == stray {
		return t.object.at.plainPath()
	}
	return t.object.plainPath()
}

func (r *repairer) one(ctx context.Context, t *trouble) (Action, error) {
	switch t.what {
	case leftover:
		return r.remove(t.object)
	case unfinished:
		return r.finish(ctx, t.object)
	case damaged:
		return r.rebuild(ctx, t.object)
	case duplicate:
		return r.separate(ctx, t)
	case nameless:
		return r.move(ctx, t.object, t.object.link, "the long name of it is lost")
	case stray:
		return r.stray(ctx, t.object)
	case misplaced:
		return r.misplaced(ctx, t.object)
	case spoiled:
		return r.strip(t)
	}
	if r.done[t.object.inode()] {
		return Action{}, nil // the new file has only what opens
	}
	return Action{Result: Kept, What: t.why}, nil
}

// dir answers the directory at a place with a reference.
func (r *repairer) dir(at *place) (*dirs.Dir, error) {
	d := r.Tree.Root()
	d.Retain()
	for _, name := range at.names(plainName) {
		e, err := d.Lookup(name)
		if err == nil {
			var sub *dirs.Dir
			if sub, err = d.Child(name, e.ID); err == nil {
				d.Release()
				d = sub
				continue
			}
		}
		d.Release()
		return nil, err
	}
	return d, nil
}

// hostDir opens the host directory of a place. The caller closes it.
func (r *repairer) hostDir(at *place) (disk.Dir, error) { return openBelow(r.Root, at.names(hostName)) }

func openBelow(root disk.Dir, path []string) (disk.Dir, error) {
	d := disk.Dir(keepOpen{root})
	for _, name := range path {
		sub, err := d.OpenDir(name)
		d.Close()
		if err != nil {
			return nil, err
		}
		d = sub
	}
	return d, nil
}

// keepOpen is the root, which stays the vault's.
type keepOpen struct{ disk.Dir }

func (keepOpen) Close() error { return nil }

// open opens the host file of an object, as it was walked over.
func (r *repairer) open(o *object) (disk.File, error) {
	d, err := r.hostDir(o.at)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Open(o.host, disk.ReadOnly)
}
