package journal

import (
	"testing"
)

// A host that tears even a sector may leave half a header in a piece that was being made: nothing is lost by that. Rot in the only header of a piece that was
// used loses what it held, and is no crash.
func TestTornHeader(t *testing.T) {
	d := newMemDisk()
	c := testConfig(d, 4)
	j := open(t, c)
	want := []tx{put(t, j, testTx(0, 10, 2000)), put(t, j, testTx(1, 10, 3000))}
	ok(t, j.Sync(j.End()))
	f, err := makePiece(d, "journal.0009", testPiece)
	ok(t, err)
	h := header{vault: c.Vault, id: c.ID, sequence: 1, size: testPiece}
	_, err = f.f.WriteAt(h.encode(testMAC())[:100], 0)
	ok(t, err)
	got, log := replay(t, c)
	mustEqual(t, got, want)
	if log.Damaged() {
		t.Errorf("half a header in a new piece counts as damage: %+v", log)
	}
	_, err = f.f.WriteAt([]byte("record"), pieceHeader)
	ok(t, err)
	if _, log = replay(t, c); !log.Cut {
		t.Errorf("a piece that was used and has no header counts for nothing: %+v", log)
	}
}
