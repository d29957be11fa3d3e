package check

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
)

// scrub runs Scrub on the vault, which is not open.
func (r *rig) scrub(pending bool, id *keys.VaultID) (Summary, []Finding) {
	r.t.Helper()
	d := r.root()
	defer d.Close()
	var all []Finding
	sum, err := Scrub(context.Background(), ScrubConfig{Root: d, Vault: id, Pending: pending, Found: func(f Finding) { all = append(all, f) }})
	r.must(err)
	sortFindings(all)
	return sum, all
}

func TestScrub(t *testing.T) {
	r := newRig(t)
	r.fill()
	sum, all := r.scrub(false, nil)
	if len(all) > 0 || sum.Objects != 10 || sum.Directories != 3 || sum.Bytes != 900+9000+200_000+5000+73728 {
		t.Fatalf("%+v\n%s", sum, lines(all))
	}
	if _, all := r.scrub(false, &keys.VaultID{1}); len(all) != 7 || !strings.Contains(all[0].What, "another vault") {
		t.Errorf("as another vault:\n%s", lines(all))
	}
	tests := []struct {
		name, file string
		damage     func(b []byte) []byte
		want       string
	}{
		{"frame", "docs/tree", func(b []byte) []byte { b[4096+4096+5] ^= 1; return b }, "0-4096/200000: digest mismatch"},
		{"block written to the wrong place", "docs/tree", func(b []byte) []byte { copy(b[4096+4096*6:], b[4096+4096*4:][:4096]); return b }, "20480-24576/200000: digest mismatch"},
		{"record", "docs/tree", func(b []byte) []byte { b[4096+600] ^= 1; return b }, "0-131072/200000: container: read meta block 0"},
		{"header", "inline", func(b []byte) []byte { b[200] ^= 1; return b }, "header CRC"},
		{"cut", "single", func(b []byte) []byte { return b[:len(b)-1] }, "8192-9000/9000: truncated"},
		{"longer", "empty", func(b []byte) []byte { return append(b, 0) }, "host length 4097, size 0 wants 4096"},
		{"emptied", "single", func(b []byte) []byte { return nil }, "no container header"},
	}
	for _, test := range tests {
		r.open(true)
		path := r.host(test.file)
		r.close()
		good, err := os.ReadFile(path)
		r.must(err)
		r.change(path, test.damage)
		for _, pending := range []bool{false, true} {
			want := Damage
			if pending {
				want = Pending
			}
			_, all = r.scrub(pending, nil)
			found := false
			for _, f := range all {
				found = found || strings.Contains(line(f), test.want)
				if f.Kind != want || filepath.Join(r.path, f.Host) != path {
					t.Errorf("%s: %+v", test.name, f)
				}
			}
			if !found {
				t.Errorf("%s: %q is not found:\n%s", test.name, test.want, lines(all))
			}
		}
		r.must(os.WriteFile(path, good, 0o600))
	}
	r.copy(r.path+"/.coffer/config", r.path+"/config (conflicted copy)")
	if sum, all := r.scrub(false, nil); sum.Foreign != 1 || sum.Damage != 0 || len(all) != 1 || all[0].Hint == "" {
		t.Errorf("foreign:\n%s", lines(all))
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	d := r.root()
	defer d.Close()
	if _, err := Scrub(ctx, ScrubConfig{Root: d}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}
