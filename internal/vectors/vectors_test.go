package vectors

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWriteRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vector")
	v := new(Vector).Set("expect", "success").Set("comment", " a: b ").SetHex("empty", nil).SetUint("n", 1<<63).Set("h", "0x10")
	long := make([]byte, 300)
	v.SetHex("exact", long[:64]).SetHex("long", long).Set("expect", "failure")
	if err := Write(path, v); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Names(), []string{"expect", "comment", "empty", "n", "h", "exact", "long"}) {
		t.Errorf("fields %v", got.Names())
	}
	if got.Get("expect") != "failure" || got.Get("comment") != " a: b " || got.Uint("n") != 1<<63 || got.Uint("h") != 16 ||
		len(got.Hex("empty")) != 0 || len(got.Hex("exact")) != 64 || len(got.Hex("long")) != 300 || got.Has("other") {
		t.Errorf("read %v", got.values)
	}
}

func TestWriteRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vector")
	for _, v := range []*Vector{
		new(Vector).Set("a", "b\nc"), new(Vector).Set("a", "b\nc: d"), new(Vector).Set("a", strings.Repeat("x", foldAt)+"\n"),
		new(Vector).Set("A", ""), new(Vector).Set("", ""), new(Vector).Set("a b", ""), new(Vector).Set("a\n", ""),
	} {
		if err := Write(path, v); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v, want ErrSyntax", v.values, err)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refused vector was written")
	}
	if _, err := Read(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestPanics(t *testing.T) {
	v := new(Vector).Set("text", "xyz")
	for what, f := range map[string]func(){
		"Get": func() { v.Get("none") }, "Hex": func() { v.Hex("text") }, "Uint": func() { v.Uint("text") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", what)
				}
			}()
			f()
		}()
	}
}

// recorder is a testing.TB that remembers failures instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Error(...any)          { r.failed = true }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestSync(t *testing.T) {
	dir := t.TempDir()
	a, b := new(Vector).Set("x", "1"), new(Vector).Set("x", "2")
	run := func(want map[string]*Vector, update bool) bool {
		r := &recorder{TB: t}
		Sync(r, dir, "p_", want, update)
		return !r.failed
	}
	if run(map[string]*Vector{"p_a": a}, false) {
		t.Error("a missing vector passes")
	}
	if !run(map[string]*Vector{"p_a": a, "p_b": b}, true) || !run(map[string]*Vector{"p_a": a, "p_b": b}, false) {
		t.Error("what was written does not pass")
	}
	if run(map[string]*Vector{"p_a": b, "p_b": b}, false) {
		t.Error("a changed vector passes")
	}
	if run(map[string]*Vector{"p_a": a}, false) {
		t.Error("a superfluous vector passes")
	}
	if !run(map[string]*Vector{"p_a": a}, true) || !run(map[string]*Vector{"p_a": a}, false) {
		t.Error("a superfluous vector stays")
	}
}

// FuzzParse: what is read is written back byte for byte.
func FuzzParse(f *testing.F) {
	f.Add("expect: success\nempty:\nlong: " + strings.Repeat("0", foldAt) + "\n 00\n")
	f.Add("a: \n")
	f.Add("a:\n \n")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parse(s)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again, err := v.format(); err != nil || again != s {
			t.Fatalf("%q is written back as %q, %v", s, again, err)
		}
	})
}
