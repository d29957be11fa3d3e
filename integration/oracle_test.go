package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// likeHost runs a shell script in the mount and in a directory of the host, which is the reference: what it prints must be the same.
func (m *mounted) likeHost(script string) {
	m.t.Helper()
	host := m.t.TempDir()
	for d := host; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		m.must(os.Chmod(d, 0o755))
	}
	m.t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+rwX", host).Run() }) // or it cannot be removed
	run := func(dir string) string {
		cmd := exec.Command("/usr/bin/env", "-C", dir, "sh", "-c", script) // see prog.command
		cmd.Dir, cmd.Env = "/", append(cleanEnv(m.t), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			m.t.Fatalf("in %s: %v\n%s", dir, err, out)
		}
		return string(out)
	}
	want, got := run(host), run(m.dir)
	if strings.Count(want, "\n") < 3 {
		m.t.Fatalf("the script says too little:\n%s", want)
	}
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			m.t.Errorf("line %d: %q, the host says %q", i+1, g[i], w[i])
		}
	}
	m.t.Errorf("%d lines, the host has %d", len(g), len(w))
}

// showAll prints what is to be compared: modes, owners and ACLs of everything.
const showAll = `
find . -printf '%p %m %U %G %y %l\n' 2>&1 | sort
`

const showACLs = `
find . ! -type l | sort | while read f; do getfacl -n "$f"; done
`

func needACL(t *testing.T, dir string) {
	t.Helper()
	need(t, "setfacl")
	need(t, "getfacl")
	if out, err := exec.Command("setfacl", "-m", "u:12:r", dir).CombinedOutput(); err != nil {
		t.Skipf("%s has no ACLs: %s", dir, out)
	}
	if out, err := exec.Command("setfacl", "-b", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// POSIX ACLs are the host's: set, inherited with the umask out of force, in agreement with chmod, copied, removed.
func TestACL(t *testing.T) {
	old := unix.Umask(0) // as the daemon has it
	t.Cleanup(func() { unix.Umask(old) })
	needACL(t, t.TempDir())
	for _, o := range []options{{acl: true, allowOther: os.Geteuid() == 0}, {acl: true, writeThrough: true}} {
		t.Run(o.String(), func(t *testing.T) {
			m := mount(t, o)
			m.must(os.Chmod(m.dir, 0o755))
			m.likeHost(`set -e; umask 027
mkdir d plaindir; touch plain; chmod 4755 plain
setfacl -m u:12:rwx,g:34:rx,d:u:12:rwx,d:g:56:r,d:o::- d
touch d/f; mkdir d/sub; mkfifo d/p; touch d/sub/f; ln -s x d/l; mkdir d/sub/deeper
(umask 077; touch d/g; mkdir d/h; echo x >d/i; mkfifo d/q)
(umask 0; touch d/j; mkdir d/k; touch plain2; mkdir plaindir2)
chmod 640 d/f; chmod g-w d/j; chmod 2770 d/k; chmod 0 d/i
setfacl -m u:12:r plain; chmod 601 plain
setfacl -m u::rw,g::r,o::- plain2
setfacl -m d:u::r,d:g::w plaindir2; touch plaindir2/f; mkdir plaindir2/d
setfacl -b d/h; setfacl -k d/sub; touch d/sub/nodefault
setfacl -x u:12 d/f
cp -a d e 2>&1 || :; cp -a plain plain3 # d/i is closed to all but root
mv d/j d/moved; ln d/moved plaindir/linked
getfacl -n plain | setfacl --set-file=- plain2
` + showAll + showACLs)
			m.remount()
			m.likeHostShows("d/f", "plain", "plaindir2/f")
		})
	}
}

// likeHostShows checks that ACLs are still there and that listings name them.
func (m *mounted) likeHostShows(files ...string) {
	m.t.Helper()
	for _, f := range files {
		out, err := exec.Command("getfacl", "-n", m.path(f)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "user::") {
			m.t.Errorf("%s: %v\n%s", f, err, out)
		}
	}
	if got := listXattr(m.t, m.path("plain")); len(got) != 1 || got[0] != "system.posix_acl_access" {
		m.t.Errorf("list: %q", got)
	}
}

// Without -o acl there are none, whatever the host has.
func TestNoACL(t *testing.T) {
	m := mount(t, options{})
	path := m.write("file", nil)
	for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if _, err := unix.Lgetxattr(m.dir, attr, nil); err != unix.EOPNOTSUPP {
			t.Errorf("get %s: %v", attr, err)
		}
	}
	need(t, "setfacl")
	if out, err := exec.Command("setfacl", "-m", "u:12:r", path).CombinedOutput(); err == nil {
		t.Errorf("an ACL was set: %s", out)
	}
}

// An ACL lets those in whom it names, and nobody else.
func TestACLDecides(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for another user")
	}
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
	needACL(t, t.TempDir())
	m := mount(t, options{acl: true, allowOther: true})
	path := m.write("file", []byte("x"))
	m.must(os.Chmod(path, 0o600))
	if err := runChild(t, nobody, "read", path); err == nil {
		t.Error("another user reads a file of mode 0600")
	}
	for _, c := range []struct {
		acl string
		may bool
	}{{"u:65534:r", true}, {"u:65534:-", false}, {"g:65534:r", false}, {"u:65534:r", true}, {"m::-", false}} {
		if out, err := exec.Command("setfacl", "-m", c.acl, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := runChild(t, nobody, "read", path); (err == nil) != c.may {
			t.Errorf("after -m %s: %v", c.acl, err)
		}
	}
}

// What other users make is theirs, in ordinary, setgid and sticky directories, with any umask, as on the host: also what chmod and
// chown leave of set-id bits, with and without membership of the group.
func TestOwnersLikeHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for other users")
	}
	need(t, "setpriv")
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
	for _, o := range []options{{allowOther: true}, {allowOther: true, writeThrough: true}, {allowOther: true, acl: true}} {
		name := o.String()
		if o.acl {
			name = "acl"
		}
		t.Run(name, func(t *testing.T) {
			m := mount(t, o)
			m.must(os.Chmod(m.dir, 0o755))
			m.likeHost(`umask 022
mkdir open sgid sticky group; chmod 777 open; chgrp 77 sgid group; chmod 2777 sgid; chmod 1777 sticky; chmod 2770 group
as() { u=$1; g=$2; s=$3; shift 3; setpriv --reuid $u --regid $g --groups $s sh -c "$*" 2>&1 | sed 's/^sh: [0-9]*: //'; }
for d in open sgid sticky group; do
  as 1001 1002 1002 "umask 027; echo x >$d/f1; mkdir $d/d1; mkfifo $d/p1; ln -s t $d/l1; ln -s $(printf %04000d 0) $d/far1"
  as 1001 1002 77 "umask 0; echo x >$d/f2; mkdir $d/d2; echo x >$d/d2/f; mkdir -m 1777 $d/d2/d; mknod $d/p2 p; cp $d/f2 $d/f2b"
  as 1001 1002 1002 "chmod 6755 $d/f1; chmod 2755 $d/d1; chmod g+s $d/f2"
  as 1001 1002 77 "chgrp 77 $d/f2b; chmod 6755 $d/f2; chmod 2755 $d/d2"
  as 1003 1003 1003 "chmod 777 $d/f1; rm -f $d/f2; chgrp 1003 $d/f1; echo y >>$d/f1"
  as 1001 1002 1002 "chown 1003 $d/f1; chgrp 77 $d/f1; chgrp 1002 $d/f2"
done
chown 5:6 open/f1; chgrp 77 sgid/f1; chown 7:8 sgid/d1
` + showAll)
		})
	}
}

// Modes without the owner's bits that the daemon itself needs: a daemon that is not root seals them and goes on working.
func TestModesOfUser(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		m.likeHost(`umask 022
for mode in 0 111 222 444 555 311 4555 2444 6000; do
  (umask 777; echo $mode >u$mode); echo $mode >f$mode; mkdir d$mode; echo x >d$mode/f; chmod $mode f$mode d$mode
done
mkdir -m 0 m0; mkdir -m 555 m555; mkdir -m 311 m311; mknod -m 0 p0 p; mknod -m 444 p444 p
(umask 777; mkdir n; mkfifo q)
for f in f* u* d*/f d* m*; do
  (cat $f || echo no; echo more >>$f; ls $f; touch $f/new; ln $f l$f; mv $f/f $f/g; rm -f $f/f) 2>&1 | sed 's/^[a-z]*: //; s/^.*line [0-9]*: //'
done
echo kept >kept; mkdir keptdir; echo x >keptdir/f; chmod 444 kept; chmod 0 keptdir
exec 3>open; chmod 0 open; echo written >&3; exec 3>&-; wc -c <open 2>&1 | sed 's/^.*: //'
touch -d @1000000000 f444; mv f555 d311/moved; chmod 444 f4555; chmod 640 f222; chmod u+r,g+s f111
` + showAll + `find . -type f -printf '%p %s %l\n' 2>&1 | sort; stat -c '%n %Y' f444`)
		tmp := tmpfile(t, m.dir, 0, 0o404)
		_, err := tmp.WriteString("kept")
		m.must(err)
		m.must(linkFile(tmp, m.path("linked")))
		m.must(tmp.Close())
		if st := lstat(t, m.path("linked")); st.Mode&0o7777 != 0o404 {
			t.Errorf("a linked O_TMPFILE has mode %o", st.Mode)
		}
		before := m.shown()
		m.remount()
		if now := m.shown(); now != before {
			t.Errorf("after remount:\n%s\nbefore:\n%s", now, before)
		}
		m.must(os.Chmod(m.path("open"), 0o400))
		m.want(m.path("open"), []byte("written\n"))
		m.want(m.path("kept"), []byte("kept\n"))
		m.want(m.path("linked"), []byte("kept"))
		m.must(os.Chmod(m.path("keptdir"), 0o700))
		m.want(m.path("keptdir", "f"), []byte("x\n"))
		if err := os.RemoveAll(m.path("keptdir")); err != nil {
			t.Error(err)
		}
		for _, host := range m.host() {
			if st := lstat(t, host); os.Geteuid() != 0 && st.Mode&0o600 != 0o600 {
				t.Errorf("the daemon cannot open its host file of mode %o", st.Mode)
			}
		}
	})
}

// A user's files keep set-id bits that were set before their content reached the host, which takes them away with each write of such a daemon; and lose
// them to a write of an application.
func TestSetIDs(t *testing.T) {
	bothModes(t, func(t *testing.T, m *mounted) {
		m.likeHost(`umask 022
show() { stat -c "$1 %n %a %s" f*; }
for n in 0 5 100000 3000000; do
  exec 3>fopen$n; head -c $n /dev/zero >&3; chmod 6755 fopen$n; exec 3>&-
  head -c $n /dev/zero >flater$n; chmod 4711 flater$n; cp -p flater$n fcopy$n
  head -c $n /dev/zero >fsynced$n; sync fsynced$n; chmod 2750 fsynced$n; echo x >>fsynced$n; chmod 6555 fsynced$n; sync fsynced$n
done
show made
tar cpf - f* | (mkdir x && cd x && tar xpf - && show unpacked)
for f in flater*; do echo x >>$f; done; : >fcopy100000; truncate -s 7 fcopy3000000; show written
chmod u-s fopen0; chmod 4400 fopen5; chmod 600 fopen100000; mv fopen0 fmoved; show changed
`)
		before := m.shown()
		m.remount()
		if now := m.shown(); now != before {
			t.Errorf("after remount:\n%s\nbefore:\n%s", now, before)
		}
		fd, err := unix.Open(m.path("new"), unix.O_CREAT|unix.O_RDWR, 0o6711)
		m.must(err)
		file := os.NewFile(uintptr(fd), "new")
		if st := fstat(t, file); st.Mode&0o7777 != 0o6711 {
			t.Errorf("made with mode %o", st.Mode)
		}
		_, err = file.Write([]byte("written"))
		m.must(err)
		m.must(file.Close())
		if st := lstat(t, m.path("new")); os.Geteuid() != 0 && st.Mode&0o7777 != 0o711 {
			t.Errorf("a write leaves mode %o", st.Mode)
		}
	})
}

// shown is name, mode, size and time of everything at the top.
func (m *mounted) shown() string {
	m.t.Helper()
	all, err := os.ReadDir(m.dir)
	m.must(err)
	var b strings.Builder
	for _, e := range all {
		st := lstat(m.t, m.path(e.Name()))
		fmt.Fprintf(&b, "%s %o %d %d\n", e.Name(), st.Mode, st.Size, st.Mtim.Sec)
	}
	return b.String()
}
