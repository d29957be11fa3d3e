package integration

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// The disk is begun with for an fdatasync that is foreseen, when the WRITE comes: the fdatasync only waits. What it acknowledges is there after any cut, and nothing
// that was begun and not acknowledged harms what was there. In a bubble no time passes, so that nothing else calls the host, however slow the machine.
func TestFsyncAhead(t *testing.T) { synctest.Test(t, testFsyncAhead) }

func testFsyncAhead(t *testing.T) {
	c := newCrashMount(t)
	node, fh := c.file(fuse.FUSE_ROOT_ID, "file", bytes.Repeat(stampedPage(1), 8))
	c.must(c.fsync(node, fh, false))
	for i := range 4 {
		c.must(c.write(node, fh, stampedPage(uint64(10+i)), int64(i)*page))
		c.must(c.fsync(node, fh, true))
	}
	var calls []string // that write
	c.disk.SetTrace(func(op, name string, _ int64, _ int) {
		if strings.Contains(op, "write") || strings.Contains(op, "sync") {
			calls = append(calls, op+" "+name)
		}
	})
	c.must(c.write(node, fh, stampedPage(20), 0))
	if len(calls) != 1 || !strings.HasPrefix(calls[0], "write ") {
		t.Fatalf("a WRITE before a foreseen fdatasync: %q", calls)
	}
	for _, loss := range crashLosses() {
		after := c.cut(loss)
		got, err := after.content("file")
		if err != nil || !bytes.Equal(got[page:4*page], stampedPages(11, 12, 13)) || !bytes.Equal(got[:page], stampedPage(10)) && !bytes.Equal(got[:page], stampedPage(20)) {
			t.Errorf("%v, before the fdatasync: %d bytes, %v", loss, len(got), err)
		}
		after.unmount()
	}
	c.must(c.fsync(node, fh, true))
	if len(calls) != 2 || calls[1] != "end "+calls[0] {
		t.Fatalf("an fdatasync that was foreseen: %q", calls[1:])
	}
	c.disk.SetTrace(nil)
	after := c.cut(disktest.LoseAll)
	if got, err := after.content("file"); err != nil || !bytes.Equal(got[:page], stampedPage(20)) {
		t.Errorf("what was acknowledged is not there: %v", err)
	}
	after.unmount()

	// What comes otherwise than foreseen.
	c.must(c.write(node, fh, stampedPage(30), 0))
	c.must(c.write(node, fh, stampedPage(31), page))
	c.must(c.fsync(node, fh, true))
	after = c.cut(disktest.LoseAll)
	if got, err := after.content("file"); err != nil || !bytes.Equal(got[:2*page], stampedPages(30, 31)) {
		t.Errorf("what was acknowledged after one WRITE more is not there: %v", err)
	}
	after.unmount()
}

// A rollback journal is made anew for each transaction, and written and synced as the last one of its name: so the disk is begun with from the first WRITE on. What
// is acknowledged of it is there after any cut, and it does not come back once what followed its removal is.
func TestNewFileAhead(t *testing.T) { synctest.Test(t, testNewFileAhead) }

func testNewFileAhead(t *testing.T) {
	c := newCrashMount(t)
	db, dfh := c.file(fuse.FUSE_ROOT_ID, "db", stampedPage(1))
	c.must(c.fsync(db, dfh, false))
	var calls []string // that write
	c.disk.SetTrace(func(op, name string, _ int64, _ int) {
		if strings.Contains(op, "write") || strings.Contains(op, "sync") {
			calls = append(calls, op+" "+name)
		}
	})
	have := func(what, name string, want []byte) {
		t.Helper()
		for _, loss := range crashLosses() {
			after := c.cut(loss)
			if got, err := after.content(name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, %s: %d bytes of %s, %v", loss, what, len(got), name, err)
			}
			after.unmount()
		}
	}
	for i := range uint64(4) {
		node, _, fh, err := c.create(fuse.FUSE_ROOT_ID, "db-journal")
		c.must(err)
		c.must(c.write(node, fh, stampedPages(i, i+100), 0))
		for _, loss := range crashLosses() { // it is there or not, and the database is
			after := c.cut(loss)
			if got, err := after.content("db"); err != nil || !bytes.Equal(got, stampedPage(i+1)) {
				t.Errorf("%v, transaction %d: the database: %d bytes, %v", loss, i, len(got), err)
			}
			after.unmount()
		}
		calls = nil
		c.must(c.fsync(node, fh, true))
		if begun := len(calls) == 1 && strings.HasPrefix(calls[0], "fdatasync journal."); begun != (i >= 2) {
			t.Errorf("transaction %d, what the first fdatasync does: %q", i, calls)
		}
		c.must(c.fsyncDir(fuse.FUSE_ROOT_ID))
		have("after the first fdatasync", "db-journal", stampedPages(i, i+100))
		c.must(c.write(node, fh, stampedPage(i+200), 0))
		calls = nil
		c.must(c.fsync(node, fh, true))
		if begun := len(calls) == 1 && strings.HasPrefix(calls[0], "end write journal."); begun != (i >= 1) {
			t.Errorf("transaction %d, what the second fdatasync does: %q", i, calls)
		}
		have("after the second", "db-journal", stampedPages(i+200, i+100))
		c.must(c.write(db, dfh, stampedPage(i+2), 0))
		c.must(c.fsync(db, dfh, true))
		have("after all", "db", stampedPage(i+2))
		c.must(c.close(node, fh, unix.O_RDWR))
		c.must(c.unlink(fuse.FUSE_ROOT_ID, "db-journal"))
		c.forget(node)
		if i < 3 {
			continue // that it was removed is in the host's page cache alone, and so is what comes behind it
		}
		c.must(c.write(db, dfh, stampedPage(i+2), 0))
		c.must(c.fsync(db, dfh, true))
		for _, loss := range crashLosses() {
			after := c.cut(loss)
			if _, _, err := after.lookup(fuse.FUSE_ROOT_ID, "db-journal"); !errors.Is(err, unix.ENOENT) {
				t.Errorf("%v, transaction %d: what was removed before what is durable: %v", loss, i, err)
			}
			after.unmount()
		}
	}
}

func stampedPages(stamps ...uint64) (all []byte) {
	for _, s := range stamps {
		all = append(all, stampedPage(s)...)
	}
	return all
}

// The mtime that the kernel told between the WRITE and the fdatasync, too late for what was begun, is that of the file after the close and a death of the process,
// also where what the journal has was brought to its place meanwhile, and where no fdatasync came.
func TestTimesAhead(t *testing.T) {
	for _, synced := range []bool{true, false} {
		c := newCrashMount(t)
		other, ofh := c.file(fuse.FUSE_ROOT_ID, "other", stampedPage(1))
		node, fh, last := c.foreseen()
		if synced {
			c.must(c.fsync(node, fh, true))
		}
		c.must(c.truncate(other, 4<<20))
		c.must(c.fsync(other, ofh, true))
		c.must(c.truncate(other, 0)) // a cut of so much has all be applied at once, which gives nothing up
		c.must(c.fsync(other, ofh, true))
		c.must(c.close(node, fh, unix.O_RDWR))
		c.wantTime(last)
	}
}

// Where what was begun is in its place already, and no fdatasync came, an mtime is on the host at once: nothing is to be handed over that would take it along.
func TestTimesAfterAhead(t *testing.T) {
	c := newCrashMount(t)
	node, _, _ := c.foreseen()
	c.must(c.Engine.Checkpoint())
	c.tellTime(node, 2000)
	c.wantTime(2000)
}

// foreseen makes a file and has an fdatasync of it be foreseen, for the first time, which does not come. last is the mtime that was told after the WRITE.
func (c *crashMount) foreseen() (node, fh, last uint64) {
	c.t.Helper()
	node, fh = c.file(fuse.FUSE_ROOT_ID, "file", stampedPage(1))
	c.must(c.fsync(node, fh, false))
	for i := range uint64(4) {
		if i > 0 {
			c.must(c.fsync(node, fh, true))
		}
		c.must(c.write(node, fh, stampedPage(10+i), 0))
		last = 1000 + i
		c.tellTime(node, last)
	}
	return node, fh, last
}

// tellTime tells an mtime as the kernel's write-back does.
func (c *crashMount) tellTime(node, sec uint64) {
	c.t.Helper()
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
		InHeader: c.header(node), Valid: fuse.FATTR_MTIME | fuse.FATTR_CTIME, Mtime: sec, Ctime: sec,
	}}
	var out fuse.AttrOut
	if s := c.kernel.fs.SetAttr(nil, &in, &out); s != fuse.OK {
		c.t.Fatal(s)
	}
}

// wantTime checks the mtime of the file that foreseen made, after a death of the process.
func (c *crashMount) wantTime(sec uint64) {
	c.t.Helper()
	after := c.cut(disktest.Killed)
	if _, a := after.known(fuse.FUSE_ROOT_ID, "file"); a.Mtime != sec {
		c.t.Errorf("mtime %d, want %d", a.Mtime, sec)
	}
	after.unmount()
}
