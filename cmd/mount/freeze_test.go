package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A copy of a frozen vault is what an unmount would leave; one of a vault that is not frozen is recognised.
func TestFreeze(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	data := bytes.Repeat([]byte("frozen "), 50_000)
	file := filepath.Join(mp, "file")
	write := func(name string, data []byte) error {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt(data, 0); err != nil {
			return err
		}
		return f.Sync()
	}
	noError(t, write(file, data))
	noError(t, write(file, bytes.ToUpper(data[:200_000]))) // through the journal
	copy(data, bytes.ToUpper(data[:200_000]))

	for i := range 100 { // which stay open until the journal's content is in its place
		for range 2 {
			noError(t, write(filepath.Join(mp, "small"+strconv.Itoa(i)), data[:8192]))
		}
	}

	// Who waits to make a file keeps its directory locked: others cannot even look up a name there that the kernel has forgotten.
	apart := filepath.Join(mp, "apart")
	noError(t, os.Mkdir(apart, 0o755))

	copyTo := func(name string) string {
		t.Helper()
		to := b.path(name)
		if out, err := exec.Command("cp", "-a", v, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
		return to
	}
	b.fails(exitBusy, "not frozen", "", "thaw", mp)
	b.fails(exitUsage, "not positive", "", "freeze", "--timeout", "0s", mp)
	torn := copyTo("torn")
	b.fails(exitCopied, "", passphrase+"\n", "mount", torn, b.mkdir("tornplain"))

	b.ok("", "freeze", "--timeout", "10m", mp)
	still := hostCtimes(t, v)
	b.fails(exitBusy, "frozen already", "", "freeze", mp)
	written := make(chan error, 1)
	go func() { written <- write(filepath.Join(apart, "later"), []byte("later")) }()
	frozen := copyTo("frozen")
	if got := readFile(t, file); got != string(data) {
		t.Error("reads differ while it is frozen")
	}
	if names, err := filepath.Glob(filepath.Join(frozen, ".coffer", "journal.*")); err != nil || len(names) > 0 {
		t.Errorf("the copy has a journal: %q, %v", names, err)
	}
	if clean, ok := peekState(frozen); !clean || !ok {
		t.Error("the copy is not clean")
	}
	select {
	case err := <-written:
		t.Errorf("a file was made and synced while the vault is frozen: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if now := hostCtimes(t, v); !maps.Equal(now, still) {
		t.Error("something was changed in the vault while it is frozen")
	}
	b.ok("", "thaw", mp)
	if err := <-written; err != nil {
		t.Errorf("a write that waited for the thaw: %v", err)
	}
	if clean, ok := peekState(v); clean || !ok {
		t.Error("the vault says that it is clean after the thaw")
	}
	noError(t, write(file, []byte("after")))

	// By itself, after its time; an unmount does not wait for that.
	b.ok("", "freeze", "--timeout", "100ms", mp)
	noError(t, write(filepath.Join(mp, "last"), []byte("last")))
	b.fails(exitBusy, "not frozen", "", "thaw", mp)
	b.ok("", "umount", mp)

	b.mount(frozen, "frozenplain")
	if got := readFile(t, b.path("frozenplain/file")); got != string(data) {
		t.Error("the copy has something else")
	}
	b.mount(torn, "tornplain", "--recover")
	if got := readFile(t, b.path("tornplain/file")); got != string(data) {
		t.Error("the copy of a vault in use has something else than was synced")
	}
	b.mount(v, "plain")
	if got := readFile(t, filepath.Join(mp, "file")); got != "after"+string(data[5:]) {
		t.Error("what was written after the thaw is lost")
	}
	if got := readFile(t, filepath.Join(mp, "last")); !strings.HasPrefix(got, "last") {
		t.Errorf("last: %q", got)
	}
}

// A frozen vault may be unmounted, by whatever means.
func TestUnmountFrozen(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	for i, unmount := range []func(mp string){
		func(mp string) { b.ok("", "umount", mp) },
		func(mp string) {
			if out, err := exec.Command("fusermount3", "-u", mp).CombinedOutput(); err != nil {
				t.Fatalf("fusermount3: %v: %s", err, out)
			}
		},
	} {
		mp := b.mount(v, "plain")
		name := filepath.Join(mp, "file")
		writeFile(t, name, strconv.Itoa(i))
		b.ok("", "freeze", "--timeout", "10m", mp)
		unmount(mp)
		b.gone(v, mp)
		b.mount(v, "plain")
		if got := readFile(t, name); got != strconv.Itoa(i) {
			t.Errorf("%d: read %q", i, got)
		}
		b.ok("", "umount", mp)
	}
}

// No order is begun, and none is at work, once those who take orders are waited for.
func TestOrdersEnd(t *testing.T) {
	l, err := listen(controlAddr(mountEntry{major: uint32(os.Getpid()), minor: 2})) // of no mount
	noError(t, err)
	var o controller
	o.start(l)
	ended := make(chan struct{})
	go func() { o.orders.Wait(); close(ended) }()
	select {
	case <-ended:
		t.Error("nobody waits for who takes orders")
	case <-time.After(20 * time.Millisecond):
	}
	noError(t, l.Close())
	<-ended
}

// hostCtimes are the ctimes of everything in a vault.
func hostCtimes(t *testing.T, v string) map[string]unix.Timespec {
	t.Helper()
	all := map[string]unix.Timespec{}
	noError(t, filepath.WalkDir(v, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		all[path] = st.Ctim
		return err
	}))
	return all
}
