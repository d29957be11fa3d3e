package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// An ext4 in a file of the mount, behind a loop device: the kernel itself reads, writes, syncs and punches holes in our file.
func TestLoopImage(t *testing.T) {
	longTier(t, "needs a loop device, and takes a while")
	p := program(t, options{}, "mkfs.ext4", "e2fsck", "mount", "umount", "losetup", "python3", "fstrim")
	if out, err := p.try("/", "losetup", "--find"); err != nil {
		t.Skipf("no loop device: %s %v", out, err)
	}
	src := filepath.Join(t.TempDir(), "src")
	p.sample(src)
	p.sh(src, "cp -a /usr/include include; rm -f $'include/x'")
	want := state(t, src, seen{noDirs: true})
	inner := t.TempDir()
	mountImage := func() {
		t.Helper()
		p.run("/", "mount", "-o", "loop,discard", p.path("image"), inner)
	}
	t.Cleanup(func() { _, _ = p.try("/", "umount", "-q", "-d", inner) }) // where the test failed in between
	p.sh(p.dir, fmt.Sprintf("truncate -s %dM image; mkfs.ext4 -q -F image", 600))
	p.checkRemount()
	for round := range 3 {
		mountImage()
		tree := filepath.Join(inner, fmt.Sprint("tree", round))
		p.run("/", "cp", "-a", src, tree)
		p.run("/", "dd", "if=/dev/urandom", "of="+inner+"/big", "bs=1M", "count=40", "oflag=direct", "status=none")
		sum := p.run(inner, "sha256sum", "big")
		p.sameState("copy in the image", state(t, tree, seen{noDirs: true}), want)
		p.run("/", "umount", inner)
		p.run(p.dir, "e2fsck", "-fn", "image")
		p.checkRemount()
		p.run(p.dir, "e2fsck", "-fn", "image")
		mountImage()
		p.sameState("copy in the image after the remount", state(t, tree, seen{noDirs: true}), want)
		p.equal("the large file", p.run(inner, "sha256sum", "big"), sum)
		p.must(os.RemoveAll(tree))
		p.run("/", "fstrim", inner)
		p.run("/", "umount", inner)
		p.run(p.dir, "e2fsck", "-fn", "image")
		p.checkRemount()
	}
}
