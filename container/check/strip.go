package check

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cofferfs/coffer/container/names"
)

// strip removes the extended attributes of an object that do not open, which nobody can read or set anew under their names. It does so only where all else
// of the object says that it is the one of its name: those of an object that stands in another's place may open there.
func (r *repairer) strip(t *trouble) (Action, error) {
	o := t.object
	lost := strings.Join(t.attrs, ", ")
	switch {
	case r.done[o.inode()]:
		return Action{}, nil // the new file has only what opens
	case r.troubled[o.inode()], o.link.Type != names.File && o.link.Type != names.Symlink:
		return Action{Result: Kept, What: "extended attributes that do not open: " + lost}, nil
	}
	a := Action{Result: Removed, What: "extended attributes that do not open: " + lost}
	if r.Tree == nil {
		return a, nil
	}
	d, err := r.hostDir(o.at)
	if err != nil {
		return Action{}, err
	}
	defer d.Close()
	x := d.Xattrs(o.host)
	for _, host := range t.attrs {
		if rerr := x.Removexattr(host); rerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", host, rerr))
		}
	}
	return a, err
}
