package vectors

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// foldAt is the length in bytes at which a value continues on the next line.
const foldAt = 128

// ErrSyntax says that a file, or a Vector to be written, breaks the format.
var ErrSyntax = errors.New("malformed vector")

// A Vector is an ordered list of fields. The zero value is empty. Not for
// concurrent changes.
type Vector struct {
	file   string     // for messages; "" when not read from one
	t      testing.TB // fails where a field is missed; nil: that panics
	names  []string
	values map[string]string
}

// Read reads the vector in the file at path. The error wraps ErrSyntax where it
// is not an I/O error.
func Read(path string) (*Vector, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v, err := parse(string(b))
	if err != nil {
		return nil, fmt.Errorf("vectors: %s: %w", path, err)
	}
	v.file = path
	return v, nil
}

// Write writes v to the file at path, replacing it. The error wraps ErrSyntax
// when a field cannot be written.
func Write(path string, v *Vector) error {
	s, err := v.format()
	if err != nil {
		return fmt.Errorf("vectors: %s: %w", path, err)
	}
	return os.WriteFile(path, []byte(s), 0o644)
}

// Names returns the names of the fields in their order.
func (v *Vector) Names() []string { return append([]string(nil), v.names...) }

// Has reports whether v has the field.
func (v *Vector) Has(name string) bool {
	_, ok := v.values[name]
	return ok
}

// Get returns the value of a field. When there is none it fails the test that Run
// has given v to, and panics otherwise: a test that misses a field must not pass.
func (v *Vector) Get(name string) string {
	s, ok := v.values[name]
	if !ok {
		v.miss("no field %q", name)
	}
	return s
}

// Hex returns the bytes of a field in hex, empty and not nil for an empty one. It
// ends as Get does when there is none or it is not hex.
func (v *Vector) Hex(name string) []byte {
	b, err := hex.DecodeString(v.Get(name))
	if err != nil {
		v.miss("field %q is not hex", name)
	}
	return b
}

// Uint returns the number in a field, decimal or with 0x in front. It ends as Get
// does when there is none or it is no number of 64 bits.
func (v *Vector) Uint(name string) uint64 {
	n, err := strconv.ParseUint(v.Get(name), 0, 64)
	if err != nil {
		v.miss("field %q is not a number", name)
	}
	return n
}

func (v *Vector) miss(format, name string) {
	s := fmt.Sprintf("vectors: %s, which expects %q: "+format, v.file, v.values["expect"], name)
	if v.t != nil {
		v.t.Helper()
		v.t.Fatal(s)
	}
	panic(s)
}

// Set sets a field to a text without line breaks, at the end when it is new. It
// returns v.
func (v *Vector) Set(name, value string) *Vector {
	if v.values == nil {
		v.values = map[string]string{}
	}
	if !v.Has(name) {
		v.names = append(v.names, name)
	}
	v.values[name] = value
	return v
}

// SetHex sets a field to bytes in hex. It returns v.
func (v *Vector) SetHex(name string, b []byte) *Vector { return v.Set(name, hex.EncodeToString(b)) }

// SetUint sets a field to a decimal number. It returns v.
func (v *Vector) SetUint(name string, n uint64) *Vector {
	return v.Set(name, strconv.FormatUint(n, 10))
}

// format returns the text of v, and refuses what parse would not read back.
func (v *Vector) format() (string, error) {
	var s strings.Builder
	for _, name := range v.names {
		value := v.values[name]
		s.WriteString(name + ":")
		for i := 0; i < len(value); i += foldAt {
			s.WriteString(" " + value[i:min(i+foldAt, len(value))] + "\n")
		}
		if value == "" {
			s.WriteString("\n")
		}
	}
	back, err := parse(s.String())
	if err != nil {
		return "", err
	}
	for _, name := range v.names {
		if back.values[name] != v.values[name] {
			return "", fmt.Errorf("%w: field %q has a line break", ErrSyntax, name)
		}
	}
	return s.String(), nil
}

// parse reads the text of a vector.
func parse(s string) (*Vector, error) {
	v := &Vector{}
	if s == "" {
		return v, nil
	}
	s, ok := strings.CutSuffix(s, "\n")
	if !ok {
		return nil, fmt.Errorf("%w: the last line has no end", ErrSyntax)
	}
	name, room := "", false // room: the line above is full, so that one may follow
	for i, line := range strings.Split(s, "\n") {
		part, folded := strings.CutPrefix(line, " ")
		if !folded {
			name, part, ok = strings.Cut(line, ":")
			if !ok || !validName(name) || v.Has(name) {
				return nil, fmt.Errorf("%w: line %d starts no new field", ErrSyntax, i+1)
			}
			v.Set(name, "")
			if part != "" {
				if part, ok = strings.CutPrefix(part, " "); !ok || part == "" {
					return nil, fmt.Errorf("%w: line %d has no space after the colon, or nothing behind it", ErrSyntax, i+1)
				}
			}
		} else if !room || part == "" {
			return nil, fmt.Errorf("%w: line %d continues nothing", ErrSyntax, i+1)
		}
		if len(part) > foldAt {
			return nil, fmt.Errorf("%w: line %d is longer than %d", ErrSyntax, i+1, foldAt)
		}
		room = len(part) == foldAt
		v.values[name] += part
	}
	return v, nil
}

func validName(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}
