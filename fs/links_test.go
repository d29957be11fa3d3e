package fs

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cofferfs/coffer/container/dirs"
)

// Links come and go in any order, few and many: each that is there is found, and no other.
func TestLinks(t *testing.T) {
	fs := &FS{}
	rng := rand.New(rand.NewPCG(1, 2))
	parents := []*inode{{}, {}, {}}
	n := &inode{}
	type key struct {
		parent int
		name   string
	}
	model := map[key]uint64{}
	most := 0
	for step := range 6000 {
		grow := step/1000%2 == 0
		k := key{rng.IntN(len(parents)), fmt.Sprint(rng.IntN(40))}
		if grow == (rng.IntN(5) > 0) {
			fs.addLinkLocked(n, parents[k.parent], dirs.Entry{Name: k.name, Seq: uint64(step)})
			model[k] = uint64(step)
		} else {
			fs.removeLinkLocked(n, parents[k.parent], k.name)
			delete(model, k)
		}
		most = max(most, len(n.links))
		if len(n.links) != len(model) || n.linkIndex != nil && len(n.linkIndex) != len(model) {
			t.Fatalf("step %d: %d links, %d in the index, want %d", step, len(n.links), len(n.linkIndex), len(model))
		}
		for p, parent := range parents {
			for name := range 40 {
				seq, want := model[key{p, fmt.Sprint(name)}]
				i := n.linkAt(parent, fmt.Sprint(name))
				if want != (i >= 0) || want && (n.links[i].parent != parent || n.links[i].entry.Seq != seq) {
					t.Fatalf("step %d: link %d of parent %d is at %d", step, name, p, i)
				}
			}
		}
	}
	if most <= 2*manyLinks || n.linkIndex != nil && len(n.links) <= manyLinks/2 {
		t.Errorf("at most %d links; %d at the end", most, len(n.links))
	}
}
