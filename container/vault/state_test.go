package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// sealedName puts an empty host file under a sealed name into the root, with a fresh link sequence, which it returns.
func sealedName(t testing.TB, v *Vault, name string) uint64 {
	t.Helper()
	seq := next(t, v)
	host, _ := names.New(v.Ring().Names()).Seal(v.Ring().VaultID.Root(), names.Link{
		Type: names.File, Geometry: v.GeometryID(), ID: keys.RandomObjectID(), Seq: seq, Name: name,
	})
	f, err := v.Root().Create(host, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return seq
}

func now() unix.Timespec { return unix.NsecToTimespec(time.Now().UnixNano()) }

func TestCleanSession(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	if v.Unclean() || v.UncleanTime(now()) || v.UncleanSeq(1) {
		t.Error("a new vault has unclean sessions")
	}
	last := uint64(0)
	for range 3*reserveBlock + 5 {
		seq := next(t, v)
		if seq != last+1 {
			t.Fatalf("sequence %d after %d", seq, last)
		}
		last = seq
	}
	closeVault(t, v)
	wantErr(t, v.Close(), ErrClosed)
	if _, err := v.NextSeq(); !errors.Is(err, ErrClosed) {
		t.Errorf("NextSeq after Close: %v", err)
	}
	v = open(t, path, OpenOptions{})
	if v.Unclean() || v.UncleanTime(now()) || v.UncleanSeq(last) {
		t.Error("a clean session is remembered")
	}
	// What was reserved and not issued was given back.
	if seq := next(t, v); seq != last+1 {
		t.Errorf("sequence %d after %d of the last session", seq, last)
	}
	v.SawSeq(10)
	if seq := next(t, v); seq != last+2 {
		t.Errorf("a low SawSeq gave sequence %d", seq)
	}
	v.SawSeq(1 << 40)
	if seq := next(t, v); seq != 1<<40+1 {
		t.Errorf("SawSeq gave sequence %d", seq)
	}
	if err := v.CloseUnclean(); err != nil {
		t.Fatal(err)
	}
	// The reservation that SawSeq forced is durable.
	v = open(t, path, OpenOptions{})
	if seq := next(t, v); seq <= 1<<40+1 {
		t.Errorf("sequence %d was issued before", seq)
	}
}

func TestNextSeqConcurrent(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	const workers, each = 8, 2500
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			list := make([]uint64, 0, each)
			for i := range each {
				seq, err := v.NextSeq()
				if err != nil {
					t.Error(err)
					return
				}
				list = append(list, seq)
				if i%500 == 0 {
					v.SawSeq(seq + uint64(w)*100)
				}
				v.UncleanSeq(seq)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, seq := range list {
				if seen[seq] {
					t.Errorf("sequence %d twice", seq)
				}
				seen[seq] = true
			}
		})
	}
	wg.Wait()
	closeVault(t, v)
}

func TestUncleanSession(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	clean := next(t, v)
	before := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
	closeVault(t, v)

	v = open(t, path, OpenOptions{})
	dirty := sealedName(t, v, "a file")
	var st unix.Stat_t
	list, err := filepath.Glob(filepath.Join(path, "[!.]*"))
	if err != nil || len(list) != 1 || unix.Lstat(list[0], &st) != nil {
		t.Fatal(list, err)
	}
	if err := v.CloseUnclean(); err != nil {
		t.Fatal(err)
	}
	for i, ro := range []bool{true, false, true, false} { // and it stays, whoever opens, cleanly closed or not
		v = open(t, path, OpenOptions{ReadOnly: ro})
		if !v.Unclean() || v.UncleanSeq(clean) || !v.UncleanSeq(dirty) || !v.UncleanSeq(dirty+reserveBlock-1) || v.UncleanSeq(dirty+reserveBlock) {
			t.Errorf("open %d: sequence intervals are wrong: %v", i, *v.state.unclean.Load())
		}
		if v.UncleanTime(before) || !v.UncleanTime(st.Ctim) || !v.UncleanTime(now()) {
			t.Errorf("open %d: time intervals are wrong: %v", i, *v.state.unclean.Load())
		}
		closeVault(t, v)
	}
}

func TestManyUncleanSessions(t *testing.T) {
	path, _ := newVault(t)
	var seqs []uint64
	for range maxSessions + 6 {
		v := open(t, path, OpenOptions{})
		seqs = append(seqs, next(t, v))
		if err := v.CloseUnclean(); err != nil {
			t.Fatal(err)
		}
	}
	v := open(t, path, OpenOptions{})
	for _, seq := range seqs {
		if !v.UncleanSeq(seq) {
			t.Errorf("sequence %d is forgotten", seq)
		}
	}
	if n := len(v.state.cur.sessions); n != maxSessions {
		t.Errorf("%d sessions", n)
	}
	if seq := next(t, v); seq <= seqs[len(seqs)-1] || v.UncleanSeq(seq) {
		t.Errorf("new sequence %d", seq)
	}
}

// What is on the host after a crash at each host call of a session, for each way to crash: the vault opens, no link sequence
// is issued twice, and a session that issued one is remembered.
func TestStateCrash(t *testing.T) {
	for _, mode := range []crashMode{crashKill, crashCut, crashTorn} {
		for n := 0; ; n++ {
			path, _ := newVault(t)
			v := open(t, path, OpenOptions{})
			first := next(t, v)
			closeVault(t, v)
			c := &crasher{at: n, mode: mode}
			issued, end := crashSession(t, c, path)
			v, err := tryOpen(t, path, OpenOptions{})
			if mode == crashTorn && errors.Is(err, ErrInUse) {
				// Half a note could be another host's. No disk tears so few bytes; if one did, a human decides.
				v, err = tryOpen(t, path, OpenOptions{ForceUnlock: true})
			}
			if err != nil {
				t.Fatalf("mode %d, crash at call %d: %v", mode, n, err)
			}
			seq := next(t, v)
			if seq <= first || len(issued) > 0 && seq <= issued[len(issued)-1] {
				t.Fatalf("mode %d, crash at call %d: sequence %d again", mode, n, seq)
			}
			for _, seq := range issued {
				if unclean := v.UncleanSeq(seq); end == ended && unclean || end == running && !unclean {
					t.Fatalf("mode %d, crash at call %d: end %d, sequence %d unclean %v", mode, n, end, seq, unclean)
				}
			}
			if v.UncleanSeq(first) {
				t.Fatalf("mode %d, crash at call %d: a clean session became unclean", mode, n)
			}
			closeVault(t, v)
			if !c.crashed {
				if n < 12 {
					t.Fatalf("only %d host calls were counted", n)
				}
				break
			}
		}
	}
}

// How far a session came before the crash.
const (
	running = iota
	ending  // within Close: the state may say either
	ended
)

// crashSession runs a session that draws a few blocks of link sequences, and returns those and how far it came.
func crashSession(t *testing.T, c *crasher, path string) (issued []uint64, end int) {
	cfg, mk := unlock(t, path, testPass)
	root, dir := c.open(t, path)
	v, err := openDisk(path, root, dir, cfg, mk, OpenOptions{})
	if err != nil {
		if !c.crashed {
			t.Fatal(err)
		}
		return nil, running
	}
	for range 2*reserveBlock + 100 {
		seq, err := v.NextSeq()
		if err != nil {
			break
		}
		issued = append(issued, seq)
	}
	v.state.mu.Lock()
	for v.state.writing {
		v.state.cond.Wait()
	}
	failed := v.state.err
	v.state.mu.Unlock()
	switch err := v.Close(); {
	case failed != nil:
		return issued, running
	case err != nil && !v.state.cur.clean:
		return issued, ending
	}
	return issued, ended
}

func TestTornSlot(t *testing.T) {
	for slot := range stateSlots {
		path, _ := newVault(t)
		v := open(t, path, OpenOptions{})
		last := next(t, v)
		closeVault(t, v)
		b := read(t, coffer(path, stateName))
		copy(b[slot*slotSize+1000:slot*slotSize+3000], bytes.Repeat([]byte{0x5a}, 2000))
		write(t, coffer(path, stateName), b)
		var log eventLog
		v = open(t, path, OpenOptions{Events: log.sink})
		if !log.has(event.Damage) {
			t.Errorf("slot %d: not reported", slot)
		}
		if seq := next(t, v); seq <= last {
			t.Errorf("slot %d: sequence %d was issued before", slot, seq)
		}
		closeVault(t, v)
	}
}

func TestLostState(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, file string){
		"missing": func(t *testing.T, file string) { remove(t, file) },
		"empty":   func(t *testing.T, file string) { write(t, file, nil) },
		"short":   func(t *testing.T, file string) { write(t, file, []byte(stateMagic)) },
		"zeros":   func(t *testing.T, file string) { write(t, file, make([]byte, stateSize)) },
		"garbage": func(t *testing.T, file string) { write(t, file, bytes.Repeat([]byte("x"), stateSize)) },
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := newVault(t)
			v := open(t, path, OpenOptions{})
			v.SawSeq(99999)
			seq := sealedName(t, v, "a file")
			write(t, filepath.Join(path, "notes of somebody else"), nil)
			closeVault(t, v)
			lose(t, coffer(path, stateName))

			before := snapshot(t, path)
			v = open(t, path, OpenOptions{ReadOnly: true})
			if !v.Unclean() || !v.UncleanSeq(seq) || !v.UncleanTime(unix.Timespec{}) {
				t.Error("read-only: does not cover everything")
			}
			closeVault(t, v)
			if after := snapshot(t, path); after != before {
				t.Errorf("opening for reading changed the host:\n%s\n%s", before, after)
			}

			var log eventLog
			for range 2 {
				v = open(t, path, OpenOptions{Events: log.sink})
				if !v.UncleanSeq(seq) || !v.UncleanSeq(1) || !v.UncleanTime(unix.Timespec{Sec: -1 << 40}) || v.UncleanSeq(seq+1) {
					t.Errorf("does not cover everything: %v", *v.state.unclean.Load())
				}
				if n := next(t, v); n <= seq {
					t.Errorf("sequence %d is not above %d", n, seq)
				}
				closeVault(t, v)
			}
			if !log.has(event.Damage) {
				t.Error("not reported")
			}
			if n := len(read(t, coffer(path, stateName))); n != stateSize {
				t.Errorf("rebuilt with %d bytes", n)
			}
		})
	}
}

// Every field of a state slot changed: without its CRC that is a torn slot, with it somebody's work.
func TestStateTamper(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	next(t, v)
	if err := v.CloseUnclean(); err != nil {
		t.Fatal(err)
	}
	good := read(t, coffer(path, stateName))
	_, mk := unlock(t, path, testPass)
	cfg, _ := unlock(t, path, testPass)
	ring := keys.NewRing(mk, cfg.VaultID)
	defer ring.Destroy()
	slots := func(edit func(b *[slotSize]byte)) []byte {
		out := bytes.Clone(good)
		for i := range stateSlots {
			edit((*[slotSize]byte)(out[i*slotSize:]))
		}
		return out
	}
	reCRC := func(b *[slotSize]byte) {
		clear(b[8:12])
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:], castagnoli))
	}
	fields := []struct {
		name string
		at   int
		want error // with the CRC right and the HMAC wrong
	}{
		{"version", 12, ErrVersion}, {"flags", 14, ErrState}, {"sequence", 16, ErrState}, {"vault id", 24, ErrState},
		{"link sequence", 40, ErrState}, {"inode", 48, ErrState}, {"birth time", 56, ErrState}, {"journal id", 64, ErrState},
		{"session count", 80, ErrState}, {"incompat", 84, ErrState}, {"ro-compat", 88, ErrState}, {"compat", 92, ErrState},
		{"reserved", 96, ErrState}, {"session start", 128, ErrState}, {"first", 136, ErrState}, {"end", 144, ErrState},
		{"session reserved", 152, ErrState}, {"rest", 4000, ErrState}, {"HMAC", stateMACAt, ErrState},
	}
	for _, f := range fields {
		write(t, coffer(path, stateName), slots(func(b *[slotSize]byte) { b[f.at] ^= 2; reCRC(b) }))
		_, err := tryOpen(t, path, OpenOptions{ReadOnly: true})
		if !errors.Is(err, f.want) {
			t.Errorf("%s changed, CRC right: %v, want %v", f.name, err, f.want)
		}
		b := (*[slotSize]byte)(slots(func(b *[slotSize]byte) { b[f.at] ^= 2 }))
		if _, err := decodeSlot(b, ring.State(), cfg.VaultID); !errors.Is(err, errSlotTorn) {
			t.Errorf("%s changed: %v, want %v", f.name, err, errSlotTorn)
		}
	}
	// Authentic and not what a writer writes.
	for _, c := range []struct {
		name string
		edit func(b *[slotSize]byte)
		want error
	}{
		{"incompat", func(b *[slotSize]byte) { b[84] = 1 }, ErrFeature},
		{"flags", func(b *[slotSize]byte) { b[14] = 2 }, ErrState},
		{"reserved", func(b *[slotSize]byte) { b[100] = 1 }, ErrState},
		{"after the sessions", func(b *[slotSize]byte) { b[3000] = 1 }, ErrState},
		{"65 sessions", func(b *[slotSize]byte) { b[80] = 65 }, ErrState},
		{"clean and open", func(b *[slotSize]byte) { b[14] = 1; clear(b[144:152]); b[80] = 1 }, ErrState},
		{"end before first", func(b *[slotSize]byte) { b[14] = 1; b[80] = 1; b[137] = 1; b[144] = 1 }, ErrState},
		{"neither clean nor open", func(b *[slotSize]byte) { b[14] = 0; b[80] = 0; clear(b[128:160]) }, ErrState},
	} {
		b := (*[slotSize]byte)(bytes.Clone(good[:slotSize]))
		c.edit(b)
		sealSlot(b, ring.State())
		if _, err := decodeSlot(b, ring.State(), cfg.VaultID); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// An inauthentic state is rebuilt when asked for, and then it is gone.
	write(t, coffer(path, stateName), slots(func(b *[slotSize]byte) { b[16] ^= 2; reCRC(b) }))
	closeVault(t, open(t, path, OpenOptions{Recover: true}))
	closeVault(t, open(t, path, OpenOptions{}))
	// Features that allow reading only, and a journal that was never begun.
	for _, c := range []struct {
		edit     func(s *stateSlot)
		readOnly bool
		want     error
	}{
		{func(s *stateSlot) { s.roCompat = 1 }, true, nil},
		{func(s *stateSlot) { s.roCompat = 1 }, false, ErrFeature},
		{func(s *stateSlot) { s.compat = 1 }, false, nil},
		{func(s *stateSlot) { s.journal[0] ^= 1 }, true, nil},
		{func(s *stateSlot) { s.journal[0] ^= 1 }, false, nil},
	} {
		s, err := decodeSlot((*[slotSize]byte)(good[slotSize:]), ring.State(), cfg.VaultID)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(s)
		write(t, coffer(path, stateName), s.encode(ring.State())[:])
		v, err := tryOpen(t, path, OpenOptions{ReadOnly: c.readOnly, Recover: true})
		if !errors.Is(err, c.want) {
			t.Errorf("error %v, want %v", err, c.want)
		}
		if err == nil {
			closeVault(t, v)
		}
	}
}

func TestCopiedVault(t *testing.T) {
	for _, clean := range []bool{true, false} {
		path, _ := newVault(t)
		v := open(t, path, OpenOptions{})
		next(t, v)
		if clean {
			closeVault(t, v)
		} else if err := v.CloseUnclean(); err != nil {
			t.Fatal(err)
		}
		dup := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dup, os.DirFS(path)); err != nil {
			t.Fatal(err)
		}
		if !clean {
			for _, ro := range []bool{true, false} {
				_, err := tryOpen(t, dup, OpenOptions{ReadOnly: ro})
				wantErr(t, err, ErrCopied)
			}
		}
		v = open(t, dup, OpenOptions{Recover: !clean})
		closeVault(t, v)
		closeVault(t, open(t, dup, OpenOptions{})) // it is its own vault now
		closeVault(t, open(t, path, OpenOptions{}))
	}
}

// snapshot describes everything below path: names, contents, times.
func snapshot(t *testing.T, path string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(path, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d %d %d", name, st.Mode, st.Size, st.Mtim, st.Ctim)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", crc32.Checksum(data, castagnoli))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// For reading only nothing is asked of the host that changes it: not even refused.
func TestReadOnlyHost(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	seq := sealedName(t, v, "a file")
	if err := v.CloseUnclean(); err != nil {
		t.Fatal(err)
	}
	for _, lose := range []string{"", backupName, lockName, stateName} {
		if lose != "" {
			remove(t, coffer(path, lose))
		}
		before := snapshot(t, path)
		cfg, mk := unlock(t, path, testPass)
		c := &crasher{at: -1, erofs: true}
		root, dir := c.open(t, path)
		v, err := openDisk(path, root, dir, cfg, mk, OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatalf("without %q: %v", lose, err)
		}
		if !v.UncleanSeq(seq) {
			t.Errorf("without %q: the unclean session is not seen", lose)
		}
		if _, err := v.NextSeq(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("NextSeq: %v", err)
		}
		closeVault(t, v)
		if c.calls != 0 {
			t.Errorf("without %q: %d changing calls", lose, c.calls)
		}
		if after := snapshot(t, path); after != before {
			t.Errorf("without %q: the host changed:\n%s\n%s", lose, before, after)
		}
	}
	cfg, mk := unlock(t, path, testPass)
	c := &crasher{at: -1, erofs: true}
	root, dir := c.open(t, path)
	_, err := openDisk(path, root, dir, cfg, mk, OpenOptions{})
	wantErr(t, err, syscall.EROFS)
}

// After a write of the state failed nothing is reserved any more, and the error stays.
func TestStateWriteFails(t *testing.T) {
	path, _ := newVault(t)
	cfg, mk := unlock(t, path, testPass)
	c := &crasher{at: -1}
	root, dir := c.open(t, path)
	v, err := openDisk(path, root, dir, cfg, mk, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.at = c.calls
	c.mu.Unlock()
	n := 0
	for {
		if _, err = v.NextSeq(); err != nil {
			break
		}
		n++
	}
	wantErr(t, err, errCrash)
	if n > reserveBlock {
		t.Errorf("%d sequences from one block", n)
	}
	_, err = v.NextSeq()
	wantErr(t, err, errCrash)
	wantErr(t, v.Close(), errCrash)
}

// After a session that could not begin again nothing is named any more, and it does not end as one that is clean: whatever the host says, the vault opens.
func TestResumeFails(t *testing.T) {
	for n, failed := 0, true; failed; n++ {
		path, _ := newVault(t)
		cfg, mk := unlock(t, path, testPass)
		c := &crasher{at: -1, once: true}
		root, dir := c.open(t, path)
		v, err := openDisk(path, root, dir, cfg, mk, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		before := next(t, v)
		if err := v.Suspend(); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.at = c.calls + n
		c.mu.Unlock()
		err = v.Resume()
		if failed = err != nil; failed {
			wantErr(t, err, errCrash)
			_, err = v.NextSeq()
			wantErr(t, err, errCrash)
			wantErr(t, v.Close(), errCrash)
		} else {
			_ = v.CloseUnclean()
		}
		v = open(t, path, OpenOptions{})
		if after := next(t, v); after <= before {
			t.Errorf("call %d: sequence %d after %d", n, after, before)
		}
		closeVault(t, v)
		if !failed && n == 0 {
			t.Error("nothing failed")
		}
	}
}

// Between two sessions there is none to end: Close leaves the record of those that did not end cleanly as it is.
func TestCloseSuspended(t *testing.T) {
	path, _ := newVault(t)
	for _, unclean := range []bool{false, true} {
		if unclean {
			v := open(t, path, OpenOptions{})
			next(t, v)
			if err := v.CloseUnclean(); err != nil {
				t.Fatal(err)
			}
		}
		v := open(t, path, OpenOptions{})
		if err := v.Suspend(); err != nil {
			t.Fatal(err)
		}
		closeVault(t, v)
		v = open(t, path, OpenOptions{})
		if v.Unclean() != unclean {
			t.Errorf("unclean %v, want %v", v.Unclean(), unclean)
		}
		closeVault(t, v)
	}
}

func TestExhausted(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	v.SawSeq(math.MaxUint64)
	_, err := v.NextSeq()
	wantErr(t, err, ErrExhausted)
	closeVault(t, v)
	_, err = tryOpen(t, path, OpenOptions{})
	wantErr(t, err, ErrExhausted)
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		ts   unix.Timespec
		want int64
	}{
		{unix.Timespec{Sec: 1, Nsec: 5}, 1e9 + 5},
		{unix.Timespec{Sec: -1, Nsec: 5}, -1e9 + 5},
		{unix.Timespec{Sec: math.MaxInt64, Nsec: 999999999}, (math.MaxInt64/int64(1e9)-1)*1e9 + 999999999},
	} {
		if got := nanoseconds(c.ts); got != c.want {
			t.Errorf("%v: %d", c.ts, got)
		}
	}
	if nanoseconds(unix.Timespec{Sec: math.MinInt64}) >= 0 {
		t.Error("the distant past is in the future")
	}
}

func FuzzParseState(f *testing.F) {
	var key [32]byte
	var id keys.VaultID
	seeds := []stateSlot{
		{clean: true, sequence: 1, nextLink: 1},
		{sequence: 7, nextLink: 4097, inode: 12, birth: 34, journal: [16]byte{1}, roCompat: 2, compat: 3,
			sessions: []session{{start: -5, first: 1, end: 9}, {start: 6, first: 7}}},
	}
	for _, s := range seeds {
		b := s.encode(key[:])
		if _, err := decodeSlot(b, key[:], id); err != nil {
			f.Fatal(err)
		}
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := new([slotSize]byte)
		copy(b[:], data)
		_, _ = decodeSlot(b, key[:], id)
		// Most of the decoder is behind HMAC and CRC: make them right, but for the fields that they do not reach.
		copy(b[:], stateMagic)
		b[12], b[13] = formatVersion, 0
		copy(b[24:], id[:])
		sealSlot(b, key[:])
		s, err := decodeSlot(b, key[:], id)
		if err != nil {
			if !errors.Is(err, ErrState) && !errors.Is(err, ErrFeature) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again := s.encode(key[:]); *again != *b {
			t.Fatal("re-encoded differently")
		}
		s.closeOpen()
		mergeSessions(s.sessions, maxSessions-1)
	})
}

var _ disk.Dir = (*crashDir)(nil)
