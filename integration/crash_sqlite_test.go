package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// sqliteMode is how sqlite3 commits. With a rollback journal and FULL it does not sync the directory after the unlink that is the commit, so that on any filesystem a
// power cut may take the last transaction back (not one before it); with EXTRA it does.
type sqliteMode struct {
	journal, synchronous string
	lastMayGo            bool
}

// transaction is one that sqlite had answered for when the disk had seen so many operations.
type transaction struct{ rows, ops int }

// sqlite3 on a real mount over a disk in memory, and the power cut at any moment: every transaction that it had answered for is there, and the database is whole.
func TestCrashSQLite(t *testing.T) {
	needFUSE(t)
	need(t, "sqlite3")
	for _, mode := range []sqliteMode{{"DELETE", "EXTRA", false}, {"DELETE", "FULL", true}, {"WAL", "FULL", false}} {
		t.Run(mode.journal+" "+mode.synchronous, func(t *testing.T) {
			base := newCrashBase(t, crashParams()[0])
			cuts := map[string]int{}
			for seed := range uint64(times(2, 60)) {
				rng := rand.New(rand.NewPCG(seed, 3))
				m := base.disk.Cut(disktest.LoseNothing, rng)
				m.Record()
				done := runSQLite(t, m, base, mode, rng)
				for range times(40, 60) {
					losses := crashLosses()
					ops, loss := rng.IntN(m.Ops()+1), losses[rng.IntN(len(losses))]
					rows, before := 0, 0
					for _, x := range done {
						if x.ops <= ops {
							rows, before = x.rows, rows
						}
					}
					if mode.lastMayGo {
						rows = before
					}
					if err := checkSQLite(t, m.CutAt(ops, loss, rng), base, rows); err != nil {
						t.Fatalf("seed %d, %v after %d of %d operations, %d rows acknowledged: %v", seed, loss, ops, m.Ops(), rows, err)
					}
					cuts[loss.String()]++
				}
			}
			t.Logf("cuts: %v", cuts)
		})
	}
}

// runSQLite makes transactions on a mount of the vault on m.
func runSQLite(t *testing.T, m *disktest.Memory, base crashBase, mode sqliteMode, rng *rand.Rand) (done []transaction) {
	t.Helper()
	s, err := openCrash(m.Root(), base.key, rng.IntN(2) == 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server, err := fs.Mount(s.FS, fs.MountOptions{Mountpoint: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Unmount(); err != nil {
			t.Fatal(err)
		}
		server.Wait()
		s.abandon(m)
	}()
	c := exec.Command("sqlite3", "-bail", filepath.Join(dir, "test.db"))
	var complaint bytes.Buffer
	c.Dir, c.Env, c.Stderr = "/", cleanEnv(t), &complaint
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	say := func(sql string, answer string) {
		t.Helper()
		fmt.Fprintf(in, "%s SELECT '%s';\n", sql, answer)
		for lines.Scan() {
			if lines.Text() == answer {
				return
			}
		}
		err := errors.Join(lines.Err(), c.Wait())
		t.Fatalf("no answer to %s: %v: %s", sql, err, complaint.String())
	}
	say("PRAGMA journal_mode="+mode.journal+"; PRAGMA synchronous="+mode.synchronous+"; PRAGMA wal_autocheckpoint=20; CREATE TABLE t(n INTEGER PRIMARY KEY, data BLOB);", "ready")
	done = append(done, transaction{0, m.Ops()})
	for n := 0; n < 60; {
		sql := "BEGIN;"
		for range 1 + rng.IntN(3) {
			n++
			sql += fmt.Sprintf(" INSERT INTO t VALUES(%d, randomblob(%d));", n, rng.IntN(9000))
		}
		if rng.IntN(3) == 0 {
			sql += fmt.Sprintf(" UPDATE t SET data=randomblob(%d) WHERE n=%d;", rng.IntN(9000), 1+rng.IntN(n))
		}
		say(sql+" COMMIT;", strconv.Itoa(n))
		done = append(done, transaction{n, m.Ops()})
		if rng.IntN(10) == 0 {
			_ = s.Engine.Checkpoint()
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	return done
}

// checkSQLite opens the vault on a disk that a cut left, copies the database out and has sqlite3 look at it.
func checkSQLite(t *testing.T, m *disktest.Memory, base crashBase, rows int) error {
	t.Helper()
	s, err := openCrash(m.Root(), base.key, true)
	if err != nil {
		return err
	}
	defer s.abandon(m)
	k, dir := newKernel(s.FS), t.TempDir()
	names, err := k.list(fuse.FUSE_ROOT_ID)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "-shm") {
			continue // not meant to survive
		}
		if err := copyOut(k, name, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	c := exec.Command("sqlite3", "-bail", filepath.Join(dir, "test.db"), "PRAGMA integrity_check;")
	if rows > 0 {
		c.Args[len(c.Args)-1] += fmt.Sprintf(" SELECT count(*) FROM t WHERE n <= %d;", rows)
	}
	c.Env = cleanEnv(t)
	out, err := c.CombinedOutput()
	want := "ok\n"
	if rows > 0 {
		want += fmt.Sprintln(rows)
	}
	if err != nil || string(out) != want {
		return fmt.Errorf("%w: sqlite3 says %q, not %q; %s", err, out, want, strings.Join(s.notes.all(), "; "))
	}
	return nil
}

func copyOut(k *kernel, name, to string) error {
	node, a, err := k.lookup(fuse.FUSE_ROOT_ID, name)
	if err != nil {
		return err
	}
	fh, err := k.open(node, unix.O_RDONLY)
	if err != nil {
		return err
	}
	var all []byte
	for uint64(len(all)) < a.Size {
		b, err := k.read(node, fh, int64(len(all)), int(min(128<<10, a.Size-uint64(len(all)))))
		if err != nil || len(b) == 0 {
			return fmt.Errorf("%d of %d bytes: %w", len(all), a.Size, err)
		}
		all = append(all, b...)
	}
	if err := k.close(node, fh, unix.O_RDONLY); err != nil {
		return err
	}
	return os.WriteFile(to, all, 0o600)
}
