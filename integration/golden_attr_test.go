package integration

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
	"github.com/cofferfs/coffer/container/vault"
)

// attrSealer writes attributes on the host as FORMAT.md 8.6 and 8.7 say. It stands apart from the code of the mount on purpose.
type attrSealer struct {
	siv *siv.Cipher
	id  keys.ObjectID
}

func (a attrSealer) seal(label string, more, plain []byte) []byte {
	ad := append([]byte(label+strings.Repeat("\x00", 24-len(label))), a.id[:]...)
	return a.siv.Seal(nil, append(ad, more...), plain)
}

func (a attrSealer) set(path, name string, value []byte) error {
	form, v := append([]byte{0}, name...), value
	if len(name) > 163 {
		sum := sha256.Sum256([]byte(name))
		form = append([]byte{1}, sum[:]...)
		v = append(append([]byte{byte(len(name))}, name...), value...)
	}
	t := a.seal("coffer xattr v1", nil, form)
	host := "user.coffer." + base64.RawURLEncoding.EncodeToString(t)
	return unix.Lsetxattr(path, host, a.seal("coffer xattr value v1", t, v), 0)
}

func (a attrSealer) setMode(path string, plain, host uint32) error {
	sealed := a.seal("coffer attributes v1", nil, []byte{1, 1, byte(plain), byte(plain >> 8)})
	return errors.Join(unix.Lsetxattr(path, "user.coffer", sealed, 0), unix.Chmod(path, host))
}

// TestReaderAttributes: the reader opens sealed extended attributes and modes, and refuses those that do not open.
func TestReaderAttributes(t *testing.T) {
	needPython(t)
	dir := t.TempDir()
	_, err := vault.Create(dir, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 64, Threads: 1}}, []byte(goldenPass))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir, "user.test", nil, 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("the host has no user attributes here")
	}
	m := openMaker(t, dir)
	root := m.tree.Root()
	cipher, err := siv.New(m.v.Ring().Xattr())
	m.must(err)
	one, two := m.full(root, "one", 0o644, 5), m.full(root, "two", 0o644, 5)
	sub := m.dir(root, "sub", 0o755)
	subEntry, err := root.Lookup("sub")
	m.must(err)
	sub.Release()
	path := func(e int) string {
		return filepath.Join(dir, hostNameOf(m.goVault, root, []dirs.Entry{one, two, subEntry}[e]))
	}

	longAttr := "user." + strings.Repeat("x", 250)
	values := map[string][]byte{"user.mime_type": []byte("text/plain"), "user.empty": nil, "user." + strings.Repeat("y", 158): []byte("163"), longAttr: []byte("long")}
	for name, value := range values {
		m.must(attrSealer{cipher, one.ID}.set(path(0), name, value))
	}
	m.must(attrSealer{cipher, one.ID}.setMode(path(0), 0o440, 0o640))
	m.must(attrSealer{cipher, two.ID}.setMode(path(1), 0o440, 0o664)) // not the host's bits any more: ignored
	m.must(attrSealer{cipher, subEntry.ID}.setMode(path(2), 0o055, 0o755))
	m.must(m.close())

	pass := filepath.Join(t.TempDir(), passFile)
	m.must(os.WriteFile(pass, []byte(goldenPass), 0o600))
	got, stderr, err := readByPython(dir, "--passphrase-file="+pass)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	modes := map[string]string{"one": "0440", "two": "0664", "sub": "0055"}
	for _, e := range got.Entries {
		if e.Mode != modes[e.Path] {
			t.Errorf("%s: mode %s, want %s", e.Path, e.Mode, modes[e.Path])
		}
		if e.Path != "one" {
			continue
		}
		for name, value := range values {
			sum := sha256.Sum256(value)
			if e.Xattrs[name] != hex.EncodeToString(sum[:]) {
				t.Errorf("attribute %s: value differs", name)
			}
		}
		if len(e.Xattrs) != len(values) {
			t.Errorf("%d attributes, want %d", len(e.Xattrs), len(values))
		}
	}
	if len(got.Entries) != len(modes) {
		t.Errorf("%d entries, want %d", len(got.Entries), len(modes))
	}

	// Of another object: sealed under its id, it opens nowhere else.
	m.must(attrSealer{cipher, one.ID}.set(path(1), "user.moved", []byte("value")))
	if _, stderr, err = readByPython(dir, "--passphrase-file="+pass); err == nil || !strings.Contains(stderr, "refused: two") {
		t.Errorf("an attribute of another object is not refused: %v\n%s", err, stderr)
	}
}
