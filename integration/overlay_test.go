package integration

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// RENAME_WHITEOUT: the old name carries the device 0:0 of its caller, from the same moment on, and through a remount. A new file, a directory, one name over another.
func TestWhiteout(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		rename := func(old, new string, flags uint) error {
			return unix.Renameat2(unix.AT_FDCWD, m.path(old), unix.AT_FDCWD, m.path(new), flags|unix.RENAME_WHITEOUT)
		}
		m.must(os.MkdirAll(m.path("dir", "sub"), 0o755))
		for _, name := range []string{"new", "file", "over"} {
			m.write(name, []byte(name))
		}
		m.must(rename("new", "dir/new", 0))
		m.must(rename("file", "over", 0))
		m.must(rename("dir/sub", "sub", unix.RENAME_NOREPLACE))
		if err := rename("over", "dir", unix.RENAME_NOREPLACE); !errors.Is(err, unix.EEXIST) {
			t.Errorf("NOREPLACE over a name: %v", err)
		}
		if err := rename("over", "dir", unix.RENAME_EXCHANGE); !errors.Is(err, unix.EINVAL) {
			t.Errorf("with EXCHANGE: %v", err)
		}
		for range 2 {
			for _, name := range []string{"new", "file", "dir/sub"} {
				var st unix.Stat_t
				m.must(unix.Lstat(m.path(name), &st))
				if st.Mode != unix.S_IFCHR || st.Rdev != 0 || st.Uid != uint32(os.Geteuid()) {
					t.Errorf("%s: mode %o, device %d, owner %d", name, st.Mode, st.Rdev, st.Uid)
				}
			}
			m.want(m.path("dir/new"), []byte("new"))
			m.want(m.path("over"), []byte("file"))
			if st, err := os.Stat(m.path("sub")); err != nil || !st.IsDir() {
				t.Errorf("the directory: %v", err)
			}
			m.remount()
		}
		m.must(os.Remove(m.path("new"))) // nothing is behind it
		if _, err := os.Lstat(m.path("new")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a removed whiteout: %v", err)
		}
	})
}

// overlayfs with all of its layers in the vault, as containers have them, leaves there what it leaves on the host.
func TestOverlay(t *testing.T) {
	needRoot(t)
	p := program(t, options{words: []string{"dev", "suid"}}, "mount", "umount", "setfattr", "getfattr")
	const layers = `mkdir low up work mnt; mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work mnt; `
	if out, err := p.try(t.TempDir(), "bash", "-ec", layers+"umount mnt"); err != nil {
		t.Skipf("no overlayfs on the host: %v: %s", err, out)
	}
	t.Cleanup(func() { detach(p.path("overlay", "mnt")) })
	p.twin("overlay", `
mkdir -p low/d/e; for i in 1 2 3 4 5 6 7; do echo $i >low/f$i; done; echo deep >low/d/e/deep; setfattr -n user.x -v 1 low/f1; rm -rf work
`+strings.Replace(layers, "low up", "up", 1)+`
echo more >>mnt/f1; rm mnt/f2; mv mnt/f3 mnt/g3; mv mnt/f4 mnt/f5; rm -r mnt/d; mkdir mnt/d; echo new >mnt/d/new; chmod 600 mnt/f6; chown 5:6 mnt/f7
touch mnt/a; ln mnt/a mnt/b; mkdir mnt/q; mv mnt/q mnt/d/q; setfattr -n user.y -v 2 mnt/f6
see() { find mnt -printf '%P %M %U %n\n' | sort; grep -r . mnt | sort; getfattr -d mnt/f1 mnt/f6; }
see; umount mnt
mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work mnt; see; umount mnt
getfattr -hdm trusted.overlay.opaque up/d; rm -rf work`, seen{noTimes: true})
	p.checkRemount()
}
