package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// breach is the program without one rule of FORMAT.md section 12 or 13.2: in file, old becomes new. A test of pkg has to notice.
type breach struct {
	rule, file, old, new string
	pkg, run             string // "": the crash tests of the whole stack
}

func breaches() []breach {
	return []breach{
		{rule: "C2 fresh slots only once what freed them is applied", file: "container/pending.go",
			old: "return f.freeing == 0", new: "return true"},
		{rule: "C2 what is stored waits in the journal", file: "container/commit.go",
			old: "f.eng.applier != nil && (stored || !fresh)", new: "f.eng.applier != nil && !fresh"},
		{rule: "C4 a full block that changed is written again", file: "container/meta.go",
			old: "f.placed[k] = false", new: "_ = k", pkg: "container", run: "TestFullGroupsArePlaced"},
		{rule: "C5 fresh frames are synced before a transaction refers to them", file: "container/log.go",
			old: "if t.direct && f.durable {", new: "if t.direct && f.durable && f.closed {"},
		{rule: "C5 or ride in it", file: "container/pending.go",
			old: "all = append(all, t.riding...)", new: ""},
		{rule: "C6 the freed ranges", file: "container/log.go",
			old: "head.Length, head.Freed, head.Made = t.length, merged(t.freed), t.made", new: "head.Length, head.Made = t.length, t.made",
			pkg: "integration", run: "TestCrashFreed"},
		{rule: "C6 patches only of blocks that the journal has whole", file: "container/apply.go",
			old: "if t.base < a.cutoff {", new: "if t.base < a.cutoff && t.f == nil {", pkg: "container", run: "TestPatchesOfDestroyedBlocks"},
		{rule: "C6 and keeps", file: "container/apply.go",
			old: "from = t.base", new: "_ = from", pkg: "container", run: "TestPatchKeepsItsBlock"},
		{rule: "C7 the journal is synced", file: "container/log.go",
			old: "return f.eng.applier.syncNames(lsn)", new: "_ = lsn\n\treturn nil"},
		{rule: "C7 the directories are synced", file: "fs/sync.go",
			old: "err = fs.syncDir(p)", new: "_ = p"},
		{rule: "C8 the journal has all of a new file", file: "container/made.go",
			old: "!allZero(b) {", new: "!allZero(b) && off < 0 {", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 and is synced", file: "container/made.go",
			old: "return true, f.eng.applier.syncNames(lsn)", new: "return true, nil", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 it moves to a directory that is durable", file: "fs/rename.go",
			old: "return r.fs.syncLinks(r.dst)", new: "return nil", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 no name may come back that had to go before", file: "fs/made.go",
			old: "if !fs.calm(parent) {", new: "if false {", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 nor before it moves", file: "fs/rename.go",
			old: "IsLong(), !r.fs.calm(r.dst):", new: "IsLong():", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 where it moved", file: "fs/rename.go",
			old: "return fs.cfg.Engine.NoteMoved(movedTo.ID, r.dd.HostPath(movedTo))", new: "return nil", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 that it was removed", file: "fs/made.go",
			old: "err := fs.cfg.Engine.NoteRemoved(e.ID, path)", new: "_, err := path, error(nil)", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 before anything else is promised", file: "container/made.go",
			old: "lsn = max(lsn, a.names)", new: "", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 it is on the host before another object takes its name", file: "fs/rename.go",
			old: "if err := r.fs.endMake(r.dd, r.to.ID); err != nil {", new: "if err := error(nil); err != nil {", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 and before it has two", file: "fs/dirops.go",
			old: "if err := fs.endMakeByName(n); err != nil {", new: "if err := error(nil); err != nil {", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 and before the journal lacks a part of it", file: "container/log.go",
			old: "ended, err := f.endMake()", new: "ended, err := false, error(nil)", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 and with its attributes", file: "fs/made.go",
			old: "ended, err := f.Container().EndMake()", new: "ended, err := false, error(nil)", pkg: "integration", run: "TestCrashMade"},
		{rule: "C8 they count until the disk says that the journal has given them up", file: "container/checkpoint.go",
			old: "given := a.log.Load().Given()", new: "given := a.cutoff", pkg: "integration", run: "TestCrashMadeLater"},
		{rule: "A3 the names of such files", file: "container/apply.go",
			old: "a.names, a.anywhere = max(a.names, t.lsn), true", new: "a.names = max(a.names, t.lsn)", pkg: "integration", run: "TestCrashMade"},
		{rule: "R5 they are made", file: "container/redo/find.go",
			old: "case f.made != nil:", new: "case f.made != nil && f.idle():", pkg: "container/redo", run: "TestMade"},
		{rule: "R5 or removed", file: "container/redo/replay.go",
			old: "if err := c.drop(f); err != nil {", new: "if err := error(nil); err != nil {", pkg: "container/redo", run: "TestMade"},
		{rule: "durable only once it is synced", file: "container/flush.go",
			old: "f.hdr.durable = f.hdr.kind <= bodyInline", new: "f.hdr.durable = true"},
		{rule: "what an unclean session had not synced becomes holes", file: "container/open.go",
			old: "return f, f.salvage()", new: "return f, nil"},
		{rule: "A1 nothing is applied before the journal is durable", file: "container/run.go",
			old: "if err := a.log.Load().Sync(end); err != nil {", new: "_ = end\n\tif err := error(nil); err != nil {"},
		{rule: "A2 punched before it is written", file: "container/place.go",
			old: "if frees {\n\t\tf.punch(ts)\n\t}\n\tif err := f.writeImages(images); err != nil {",
			new: "err := f.writeImages(images)\n\tif frees {\n\t\tf.punch(ts)\n\t}\n\tif err != nil {"},
		{rule: "A2 the exact length", file: "container/place.go",
			old: "if have == want || have > want && !exact {", new: "if have == want || have > want && (!exact || cut) {"},
		{rule: "A3 synced before it is given up", file: "container/checkpoint.go",
			old: "if anywhere && err == nil {\n\t\terr = a.host.SyncAll()", new: "if anywhere && err == nil {\n\t\terr = nil"},
		{rule: "J2 the header of a piece before what it held is missed", file: "journal/append.go",
			old: "!p.used || p.header.limit() > j.given", new: "false && p.used", pkg: "journal", run: "TestPowerCut"},
		{rule: "J3 straight to the disk only behind what is durable", file: "journal/append.go",
			old: "if j.synced != begin {", new: "if j.synced > begin {", pkg: "journal", run: "TestPowerCut"},
		{rule: "J3 only what ended its way to the disk is durable", file: "journal/piece.go",
			old: "err := p.direct.End()", new: "err := error(nil)", pkg: "journal", run: "TestPowerCut"},
		{rule: "J3 one is on its way at a time", file: "journal/sync.go",
			old: "if flying == nil {", new: "if flying != nil || end >= 0 {", pkg: "journal", run: "TestPowerCut"},
		{rule: "J3 what a block held before the record", file: "journal/append.go",
			old: "copy(j.buf[:before], j.last)", new: "", pkg: "journal", run: "TestPowerCut"},
		{rule: "A4 only what is durable is given up", file: "journal/journal.go",
			old: "if upTo = min(upTo, j.synced); upTo <= j.recycled {", new: "if upTo <= j.recycled {", pkg: "journal", run: "TestRecycle"},
		{rule: "an intent before an exchange", file: "fs/stack.go",
			old: "Intend: s.Engine.Intend(),", new: ""},
		{rule: "R2 the journal is durable before anything is replayed", file: "container/redo/replay.go",
			old: "if err := r.SyncAll(); err != nil { // R2", new: "if err := error(nil); err != nil { // R2", pkg: "container/redo", run: "TestCut"},
		{rule: "R6 the exact length", file: "container/redo/replay.go",
			old: "host.Truncate(f.length)", new: "error(nil)", pkg: "container/redo", run: "Test"},
		{rule: "R7 the mtime", file: "container/redo/replay.go",
			old: "f.mtime})", new: "{Nsec: unix.UTIME_OMIT}})", pkg: "container/redo", run: "TestTimes"},
		{rule: "R8 synced before the journal is removed", file: "container/redo/replay.go",
			old: "if err := disk.SyncTree(c.Root); err != nil { // R8", new: "if err := error(nil); err != nil { // R8", pkg: "container/redo", run: "TestCut"},
	}
}

// Each rule is needed, and the tests know: with any one taken out of the source, by an overlay of the build, they fail.
func TestCrashRules(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range breaches() {
		b.source(t, root)
	}
	longTier(t, "it builds the tests once for every rule")
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("no compiler: %v", err)
	}
	for _, b := range breaches() {
		t.Run(b.rule, func(t *testing.T) {
			out, took, err := b.test(t, root)
			var exit *exec.ExitError
			switch {
			case err == nil:
				t.Errorf("no test notices")
			case !errors.As(err, &exit) || strings.Contains(out, "[build failed]") || !strings.Contains(out, "--- FAIL"):
				t.Fatalf("%v\n%s", err, out)
			default:
				t.Logf("noticed within %v", took.Round(time.Second))
			}
		})
	}
}

// source reads the file of the breach, which must have its place once.
func (b breach) source(t *testing.T, root string) (path, src string) {
	t.Helper()
	path = filepath.Join(root, b.file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), b.old); n != 1 {
		t.Fatalf("%s has %d places like %q, one is meant", b.file, n, b.old)
	}
	return path, string(text)
}

// test runs the tests on the source with the breach.
func (b breach) test(t *testing.T, root string) (string, time.Duration, error) {
	t.Helper()
	path, src := b.source(t, root)
	tmp := filepath.Join(t.TempDir(), filepath.Base(b.file))
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: tmp}})
	if err == nil {
		err = errors.Join(os.WriteFile(tmp, []byte(strings.Replace(src, b.old, b.new, 1)), 0o600), os.WriteFile(overlay, list, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.pkg == "" {
		b.pkg, b.run = "integration", "TestCrash$"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-count=1", "-vet=off", "-run", b.run, "./"+b.pkg)
	c.Dir = root
	c.Env = append(os.Environ(), "COFFER_LONG=", fmt.Sprintf("COFFER_CRASH_TIME=%v", 4*time.Minute))
	began := time.Now()
	out, err := c.CombinedOutput()
	return string(out), time.Since(began), err
}
