package vault

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// walk calls fn for every object below root but the .coffer directory, and returns what could not be read, joined. parent is
// the directory that name lies in, open for the call; up is what fn returned for that directory. Errors of fn stop the walk.
func walk[T any](root disk.Dir, top T, fn func(parent disk.Dir, up T, name string, typ uint8) (T, error)) (unread, err error) {
	err = disk.Walk(root, top, func(d disk.Dir, up T, err error) (below []disk.Below[T], _ error) {
		type object struct {
			name string
			typ  uint8
		}
		var list []object
		if err == nil {
			err = d.List(func(name string, _ uint64, typ uint8) error {
				list = append(list, object{name, typ})
				return nil
			})
		}
		if err != nil {
			unread = errors.Join(unread, err)
		}
		for _, o := range list {
			if d == root && o.name == cofferDir {
				continue
			}
			if o.typ == unix.DT_UNKNOWN {
				o.typ = typeOf(d, o.name)
			}
			at, err := fn(d, up, o.name, o.typ)
			if err != nil {
				return nil, err
			}
			if o.typ == unix.DT_DIR {
				below = append(below, disk.Below[T]{Name: o.name, At: at})
			}
		}
		return below, nil
	})
	return unread, err
}

// typeOf returns DT_UNKNOWN for what cannot be looked at.
func typeOf(d disk.Dir, name string) uint8 {
	var st unix.Stat_t
	if err := d.Stat(name, &st); err != nil {
		return unix.DT_UNKNOWN
	}
	return uint8(st.Mode >> 12 & 15) // DT_ values are S_IFMT's bits
}

// scanNames walks all names for a lost state and returns the highest link sequence of the authentic ones. Where the top of the
// tree has objects that look like sealed names and none of them is of this vault, config and tree do not belong together:
// ErrState. Any other error says that the walk was not complete; the sequence is then that of what was seen.
func scanNames(root disk.Dir, ring *keys.Ring) (highest uint64, err error) {
	key := ring.Names()
	codec := names.New(key)
	clear(key)
	type dir struct {
		id      keys.ObjectID
		foreign bool // not of this vault, and nothing below it is
	}
	sealed, authentic := 0, 0
	unread, err := walk(root, dir{id: ring.VaultID.Root()}, func(parent disk.Dir, up dir, name string, _ uint8) (dir, error) {
		if up.foreign || names.IsSidecar(name) {
			return dir{foreign: true}, nil
		}
		l, err := codec.Open(up.id, name)
		if err != nil {
			if parent == root && names.HasForm(name) {
				sealed++
			}
			return dir{foreign: true}, nil
		}
		authentic++
		highest = max(highest, l.Seq)
		return dir{id: l.ID}, nil
	})
	if err == nil && sealed > 0 && authentic == 0 {
		err = fmt.Errorf("no name in the vault is of its config: %w", ErrState)
	}
	return highest, errors.Join(err, unread)
}
