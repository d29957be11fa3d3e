package check

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// badDisk cannot read one byte of the host files called name.
type badDisk struct {
	disk.Dir
	name string
	at   int64
}

func (d badDisk) OpenDir(name string) (disk.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return badDisk{sub, d.name, d.at}, nil
}

func (d badDisk) Open(name string, a disk.Access) (disk.File, error) {
	f, err := d.Dir.Open(name, a)
	if err != nil || name != d.name {
		return f, err
	}
	return badFile{f, d.at}, nil
}

func (d badDisk) Rename(name string, dst disk.Dir, dstName string, flags uint) error {
	return d.Dir.Rename(name, dst.(badDisk).Dir, dstName, flags)
}

func (d badDisk) Link(name string, dst disk.Dir, dstName string) error {
	return d.Dir.Link(name, dst.(badDisk).Dir, dstName)
}

type badFile struct {
	disk.File
	at int64
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, unix.EIO
	}
	return f.File.ReadAt(p, off)
}

// TestRepairReadErrors: what the host cannot read now it may read later, so that the original stays and what could be read lies in lost+found.
func TestRepairReadErrors(t *testing.T) {
	m := disktest.NewMemory()
	r := newRigOn(t, "", func() disk.Dir { return m.Root() })
	r.fill()
	whole := r.contentNow()
	r.open(true)
	host := r.host("docs/tree")
	r.close()
	name := host[strings.LastIndexByte(host, '/')+1:]
	r.root = func() disk.Dir { return badDisk{m.Root(), name, 8192 + 5*4096 + 1} }
	for _, want := range []string{"copied docs/tree -> lost+found/ID", "kept docs/tree -> lost+found/ID"} {
		_, kept, done := r.repair(false)
		if got := strings.ReplaceAll(actions(done), " [20480-24576]", ""); kept != 1 || !matches(got, want) {
			t.Fatalf("%d kept:\n%s\nwant %s", kept, got, want)
		}
		got := joined(r.contentNow(), done[0].To)
		if want := zeroed(20480, 24576)(joined(whole, "docs/tree")); string(got) != string(want) {
			t.Errorf("the copy differs at %d", firstDifference(got, want))
		}
	}
	r.root = func() disk.Dir { return m.Root() } // the disk is well again
	if bad := worse(whole, r.contentNow()); len(bad) > 0 {
		t.Errorf("the original lost %q", bad)
	}
	if _, all := r.verify(); len(all) > 0 {
		t.Errorf("found:\n%s", lines(all))
	}
}
