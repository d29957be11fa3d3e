package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestFromMount8(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"/sbin/mount.fuse.coffer /v /m", "mount --quiet -- /v /m"},
		{"mount.fuse.coffer v m -o rw", "mount --quiet -o rw -- v m"},
		{"mount.fuse.coffer /v /m -v -o rw,nofail,passfile=/p,allow_other -t fuse.coffer", "mount --quiet --passfile=/p -o rw,allow_other -- /v /m"},
		{"mount.fuse.coffer /v /m -n -o ro,noauto,_netdev,x-systemd.idle-timeout=5,user=joe,idle=5m,log=/l,comment=x", "mount --quiet --idle=5m --log=/l -o ro -- /v /m"},
		{"mount.fuse.coffer -o noatime,nodiratime /v /m -o suid,dev", "mount --quiet -o noatime,suid,dev -- /v /m"},
		{"mount.fuse.coffer /v /m -o what", "mount --quiet -o what -- /v /m"}, // and coffer refuses it
		{"mount.fuse.coffer /v /m -o foreground=true,options=ro,fsname=f", "mount --quiet -o foreground=true,options=ro,fsname=f -- /v /m"},
		{"mount.fuse.coffer /v /m -sv -o what,fsname=x", "mount --quiet -o fsname=x -- /v /m"},
		{"mount.fuse.coffer /v /m -fnv -o ro", ""},
		{"mount.fuse.coffer /v /m -oro", "mount --quiet -o ro -- /v /m"},
		{"mount.fuse.coffer /v /m -o rw,remount,ro", "error"},
		{"mount.fuse.coffer -- /v", "error"},
		{"mount.fuse.coffer /v", "error"},
		{"mount.fuse.coffer /v /m /x", "error"},
		{"mount.fuse.coffer /v /m -o", "error"},
		{"mount.fuse.coffer /v /m -N /ns", "error"},
		{"coffer /v /m -o rw,passfile=/p,dev,suid", "mount --quiet --passfile=/p -o rw -- /v /m"},
		{"coffer mount /v /m -o rw", "no"},
		{"coffer umount /m", "no"},
		{"coffer", "no"},
	} {
		args, ok, err := fromMount8(strings.Fields(c.line))
		got := strings.Join(args, " ")
		switch {
		case err != nil:
			got = "error"
		case !ok:
			got = "no"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.line, got, c.want, err)
		}
	}
}

// helper is the program under the name that mount(8) calls.
func (b *box) helper() string {
	b.t.Helper()
	path := b.path("bin/" + helperName)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(program, path); err != nil && !os.IsExist(err) {
		b.t.Fatal(err)
	}
	return path
}

func TestMountHelper(t *testing.T) {
	needFUSE(t, nil)
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	pass := b.write("pass", passphrase+"\n")
	run := func(args ...string) result {
		cmd := b.command(context.Background(), args...)
		cmd.Path = b.helper()
		cmd.Args[0] = cmd.Path
		return b.finish(cmd, "")
	}
	if r := run(v, mp, "-v", "-o", "rw,noexec,nofail,x-systemd.automount,passfile="+pass); r.code != 0 || r.stderr != "" {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	if m, ok, err := mountAt(mp); err != nil || !ok || m.fsType != fsType || m.source != v {
		t.Errorf("mounted: %+v, %v", m, err)
	}
	b.ok("", "umount", mp)
	if r := run(v, mp, "-f", "-o", "rw"); r.code != 0 {
		t.Errorf("a fake mount: exit %d: %s", r.code, r.stderr)
	}
	for _, c := range []struct {
		code int
		args []string
	}{
		{mount8Usage, []string{v}},
		{mount8Usage, []string{v, mp, "-o", "nonsense,passfile=" + pass}},
		{mount8Failed, []string{v, mp, "-o", "rw,nosuid,user_id=0,remount,ro"}},
		{mount8Failed, []string{b.path("none"), mp, "-o", "passfile=" + pass}},
		{mount8Failed, []string{v, mp, "-o", "passfile=/dev/null"}},
	} {
		if r := run(c.args...); r.code != c.code || !strings.HasPrefix(r.stderr, "coffer: ") {
			t.Errorf("%v: exit %d, want %d: %s", c.args, r.code, c.code, r.stderr)
		}
	}
}

// mount.fuse of fuse3 calls coffer by a way of its own.
func TestMountFuse3(t *testing.T) {
	tool := "/sbin/mount.fuse3"
	if _, err := os.Stat(tool); err != nil || os.Geteuid() != 0 {
		t.Skipf("%s is not installed, or this is not root: %v", tool, err)
	}
	needFUSE(t, nil)
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	pass := b.write("pass", passphrase+"\n")
	cmd := exec.Command(tool, v, mp, "-t", "fuse.coffer", "-o", "rw,nofail,noatime,passfile="+pass)
	cmd.Env = append(b.command(context.Background()).Env, "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mounts := readFile(t, "/proc/self/mounts")
	if want := v + " " + mp + " fuse.coffer rw,nosuid,nodev,noatime,"; !strings.Contains(mounts, want) {
		t.Errorf("no %q in\n%s", want, mounts)
	}
	b.ok("", "umount", mp)
}
