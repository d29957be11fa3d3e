package disk_test

import (
	"os"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// What is made under another identity belongs to it at once, in a directory that it could not enter by itself; everything made beside
// and after it does not.
func TestAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root takes other identities")
	}
	d := openRoot(t, t.TempDir())
	defer d.Close()
	if err := d.ChmodSelf(0o700); err != nil {
		t.Fatal(err)
	}
	want := func(name string, uid, gid uint32) {
		t.Helper()
		var st unix.Stat_t
		if err := d.Stat(name, &st); err != nil || st.Uid != uid || st.Gid != gid {
			t.Errorf("%s: %d:%d, %v; want %d:%d", name, st.Uid, st.Gid, err, uid, gid)
		}
	}
	for _, c := range []struct {
		name     string
		uid, gid int
	}{{"both", 12345, 54321}, {"uid", 12345, -1}, {"gid", -1, 54321}, {"none", -1, -1}} {
		err := disk.As(c.uid, c.gid, func() error {
			f, err := d.Create(c.name, 0o6710)
			if err == nil {
				f.Close()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want(c.name, uint32(max(c.uid, 0)), uint32(max(c.gid, 0)))
		var st unix.Stat_t
		if d.Stat(c.name, &st); st.Mode&0o7777 != 0o6710 {
			t.Errorf("%s: mode %o", c.name, st.Mode)
		}
	}
	if err := disk.As(12345, 54321, func() error { return d.Mknod("null", unix.S_IFCHR|0o600, unix.Mkdev(1, 3)) }); err == nil {
		want("null", 12345, 54321)
	} else {
		t.Logf("no device nodes here: %v", err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				name := string(rune('a'+w)) + string(rune('0'+i))
				uid := 1000 + w
				if w%2 == 0 {
					uid = 0
				}
				if err := disk.As(uid, uid, func() error { return d.Symlink("x", name) }); err != nil {
					t.Error(err)
				}
				want(name, uint32(uid), uint32(uid))
			}
		})
	}
	wg.Wait()
}
