package dirs

import (
	"errors"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// Settle gives the host file of a container that has no name in the tree yet mode and owner, as creations do; uid and gid of -1 leave what the host
// gave. LinkFile may make it known afterwards.
func (t *Tree) Settle(f disk.File, id keys.ObjectID, mode uint32, uid, gid int) error {
	err := t.root.settle(f, want{id, names.File, mode, uid, gid})
	var made madeError
	if errors.As(err, &made) {
		err = made.error
	}
	return err
}
