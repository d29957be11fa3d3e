package vectors

import (
	"errors"
	"path/filepath"
	"testing"
)

// Run gives the vector in each of the files to check, in a subtest of the
// file's name. check answers the error that the code under test ends with, which
// must be the one that the field expect stands for in errs: nil is for what is to
// succeed. A field that check asks for and that is not there, or is malformed,
// fails the subtest.
func Run(t *testing.T, paths []string, errs map[string]error, check func(t *testing.T, v *Vector) error) {
	t.Helper()
	if len(paths) == 0 {
		t.Error("no vectors")
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			v, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			v.t = t
			want, known := errs[v.Get("expect")]
			if !known {
				t.Fatalf("unknown expectation %q", v.Get("expect"))
			}
			if err := check(t, v); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}
