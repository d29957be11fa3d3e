package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writer does to a directory of a mount what programs do, until ctx is done.
func writer(ctx context.Context, dir string, seed uint64) error {
	rng := mrand.New(mrand.NewPCG(seed, 1))
	data := bytes.Repeat([]byte("some content "), 100_000)
	long := strings.Repeat("long name ", 20)
	big, err := os.OpenFile(filepath.Join(dir, "big"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer big.Close()
	fail := func(err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		return err
	}
	for ctx.Err() == nil {
		var err error
		name := filepath.Join(dir, fmt.Sprintf("%s%d", []string{"f", long}[rng.IntN(2)], rng.IntN(8)))
		other := filepath.Join(dir, fmt.Sprintf("f%d", rng.IntN(8)))
		switch rng.IntN(12) {
		case 0:
			err = os.WriteFile(name, data[:rng.IntN(len(data))], 0o644)
		case 1:
			err = os.Remove(name)
		case 2:
			err = os.Rename(name, other)
		case 3:
			err = unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		case 4:
			err = unix.Setxattr(name, "user.note", data[:1+rng.IntN(100)], 0)
		case 5:
			err = unix.Removexattr(name, "user.note")
			if errors.Is(err, unix.ENODATA) {
				err = nil
			}
		case 6:
			err = os.Truncate(name, int64(rng.IntN(len(data))))
		case 7:
			if err = os.MkdirAll(filepath.Join(dir, "sub", "subsub"), 0o755); err == nil {
				err = os.Rename(name, filepath.Join(dir, "sub", "subsub", filepath.Base(name)))
			}
		case 8:
			err = os.Rename(filepath.Join(dir, "sub"), other)
		case 9:
			_ = os.Remove(filepath.Join(dir, "link"))
			err = os.Symlink(string(data[:20]), filepath.Join(dir, "link"))
		default:
			if _, err = big.WriteAt(data[:rng.IntN(300_000)], int64(rng.IntN(4<<20))); err == nil && rng.IntN(4) == 0 {
				err = big.Sync()
			}
		}
		if err = fail(err); err != nil && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// TestVerifyMounted checks a vault that programs write to: it finds nothing where there is nothing, and what there is.
func TestVerifyMounted(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	mp := b.mount(v, "m")
	text := strings.Repeat("text ", 1_000_000)
	writeFile(t, filepath.Join(mp, "report"), text)
	noError(t, unix.Setxattr(filepath.Join(mp, "report"), "user.note", []byte("noted"), 0))
	b.ok("", "umount", mp)
	host := biggest(t, v)
	b.mount(v, "m")

	empty, err := os.Create(filepath.Join(mp, "empty")) // and never closed: nothing of it is on the host
	noError(t, err)
	defer empty.Close()
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i := range 3 {
		dir := filepath.Join(mp, fmt.Sprint(i))
		noError(t, os.Mkdir(dir, 0o755))
		writers.Go(func() {
			if err := writer(ctx, dir, uint64(os.Getpid()+i)); err != nil {
				t.Errorf("seed %d: %v", os.Getpid()+i, err)
			}
		})
	}
	for range 3 {
		time.Sleep(100 * time.Millisecond)
		r := b.run("", "verify", v)
		if r.code != 0 || !strings.Contains(r.stdout, "no damage") || strings.Count(r.stdout, "\n") != 1 {
			t.Errorf("exit %d: writers make damage\n%s%s", r.code, r.stdout, r.stderr)
		}
	}
	// Frame 2 of segment 1: behind header and meta block.
	changeByte(t, host, 8192+65536+2*4096+7)
	writeFile(t, filepath.Join(v, ".DS_Store"), "junk")
	for range 2 {
		r := b.run("", "verify", v)
		if r.code != int(exitDamage) || !strings.Contains(r.stdout, "damage: report: bytes 73728 to 77823 of 5000000: authentication failed") ||
			!strings.Contains(r.stdout, "foreign: host file .DS_Store") || strings.Count(r.stdout, "\n") != 3 {
			t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}
	all, sum := parseFindings(t, b.run("", "verify", "--json", v).stdout)
	if len(all) != 2 || sum.Damage != 1 || sum.Foreign != 1 || sum.LostBytes != 4096 {
		t.Errorf("%+v %+v", all, sum)
	}
	b.fails(exitInUse, "a mounted vault is not repaired", "", "verify", "--repair", v)
	stop()
	writers.Wait()
	noError(t, empty.Close()) // a process that is started would, and wait
	b.ok("", "freeze", mp)
	if r := b.run("", "verify", v); r.code != int(exitDamage) {
		t.Errorf("frozen: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	b.ok("", "thaw", mp)
	b.ok("", "umount", mp)
	if r := b.run(passphrase+"\n", "verify", v); r.code != int(exitDamage) || strings.Count(r.stdout, "damage: ") != 1 {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
