package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/cofferfs/coffer/container/vault"
)

var updateGolden = flag.Bool("update", false, "write new golden vaults: only for a new format, the old ones must stay readable")

const (
	goldenDir  = "testdata/golden"
	goldenPass = "golden passphrase \u00e9"

	vaultFile, manifestFile = "vault.tar.gz", "MANIFEST.json"
	passFile, recoveryFile  = "passphrase.txt", "recovery_key.txt"
)

// goldenVaults are made by -update and committed.
var goldenVaults = []goldenSpec{
	{"xaes_crc32c_64k_4k", vault.Params{Suite: "xaes-256-gcm", Digest: "crc32c", SegmentSize: 64 << 10, FrameSize: 4 << 10}, 3, false},
	{"xchacha_sha256_16k_4k", vault.Params{Suite: "xchacha20-poly1305", Digest: "sha256", SegmentSize: 16 << 10, FrameSize: 4 << 10}, 3, true},
	{"xaes_blake3_4m_64k", vault.Params{Suite: "xaes-256-gcm", Digest: "blake3", SegmentSize: 4 << 20, FrameSize: 64 << 10}, 1, false},
}

// freshVaults are made anew by each run.
var freshVaults = append(goldenVaults[:len(goldenVaults):len(goldenVaults)],
	goldenSpec{"xchacha_none_256k_16k", vault.Params{Suite: "xchacha20-poly1305", Digest: "none", SegmentSize: 256 << 10, FrameSize: 16 << 10}, 3, true},
	goldenSpec{"xaes_sha256_1m_32k", vault.Params{Suite: "xaes-256-gcm", Digest: "sha256", SegmentSize: 1 << 20, FrameSize: 32 << 10}, 2, false})

type goldenSpec struct {
	name    string
	params  vault.Params
	levels  int  // of the tree, each with two nodes; the host files get long
	unclean bool // ends with what a session that did not end cleanly leaves
}

// TestGoldenReader: the reader that was written from FORMAT.md reads every golden vault, by passphrase and by recovery key.
func TestGoldenReader(t *testing.T) {
	needPython(t)
	for _, spec := range goldenVaults {
		t.Run(spec.name, func(t *testing.T) {
			t.Parallel()
			dir, want := spec.unpack(t)
			for _, secret := range []string{"--passphrase-file=" + spec.file(passFile), "--recovery-key-file=" + spec.file(recoveryFile)} {
				got, stderr, err := readByPython(dir, secret)
				if err != nil {
					t.Fatalf("%v\n%s", err, stderr)
				}
				sameManifest(t, got, want)
			}
		})
	}
}

// TestGoldenGo: the Go packages read every golden vault, by passphrase and by recovery key.
func TestGoldenGo(t *testing.T) {
	if *updateGolden {
		for _, spec := range goldenVaults {
			spec.write(t)
		}
	}
	for _, spec := range goldenVaults {
		t.Run(spec.name, func(t *testing.T) {
			dir, want := spec.unpack(t)
			pass, recovery := spec.secrets(t)
			for _, p := range [][]byte{pass, nil} {
				got, err := readByGo(dir, p, recovery)
				if err != nil {
					t.Fatal(err)
				}
				sameManifest(t, got, want)
			}
		})
	}
}

// TestFreshReader: the reader and Go agree on vaults that the present code writes.
func TestFreshReader(t *testing.T) {
	needPython(t)
	for _, spec := range freshVaults {
		t.Run(spec.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			recovery := spec.fill(t, dir, true)
			want, err := readByGo(dir, []byte(goldenPass), "")
			if err != nil {
				t.Fatal(err)
			}
			key := filepath.Join(t.TempDir(), recoveryFile)
			if err := os.WriteFile(key, []byte(recovery), 0o600); err != nil {
				t.Fatal(err)
			}
			got, stderr, err := readByPython(dir, "--recovery-key-file="+key)
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr)
			}
			sameManifest(t, got, want)
		})
	}
}

func (spec goldenSpec) file(name string) string { return filepath.Join(goldenDir, spec.name, name) }

// write makes the golden vault anew.
func (spec goldenSpec) write(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	spec.store(t, dir, spec.fill(t, dir, false))
}

// store keeps the vault in dir as golden.
func (spec goldenSpec) store(t *testing.T, dir, recovery string) {
	t.Helper()
	m, err := readByGo(dir, []byte(goldenPass), "")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := packTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(goldenDir, spec.name), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		vaultFile: archive, manifestFile: append(text, '\n'), passFile: []byte(goldenPass + "\n"), recoveryFile: []byte(recovery + "\n"),
	} {
		if err := os.WriteFile(spec.file(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unpack puts the golden vault into a directory and returns that and its manifest.
func (spec goldenSpec) unpack(t *testing.T) (dir string, want manifest) {
	t.Helper()
	dir = t.TempDir()
	archive, err := os.ReadFile(spec.file(vaultFile))
	if err == nil {
		err = unpackTree(archive, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(spec.file(manifestFile))
	if err == nil {
		err = json.Unmarshal(text, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, want
}

func (spec goldenSpec) secrets(t *testing.T) (pass []byte, recovery string) {
	t.Helper()
	pass, err := os.ReadFile(spec.file(passFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(spec.file(recoveryFile))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(pass, []byte("\n")), string(key)
}

func readByGo(dir string, pass []byte, recovery string) (manifest, error) {
	g, err := openGo(dir, pass, recovery, vault.OpenOptions{ReadOnly: true})
	if err != nil {
		return manifest{}, err
	}
	m, err := g.manifest()
	return m, errors.Join(err, g.close())
}

// debianPython is Debian's: another one may stand first in the path, without python3-cryptography.
const debianPython = "/usr/bin/python3"

// needPython skips a test of the second reader where that cannot run, and under -short: the bytes that it judges are the same with the race detector and on one
// processor.
func needPython(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: the second reader is asked without it")
	}
	out, err := exec.Command(debianPython, "-c", "from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV").CombinedOutput()
	if err != nil {
		t.Skipf("%s with cryptography is not here (Debian: apt-get install python3-cryptography): %v %s", debianPython, err, out)
	}
}

func readByPython(dir, secret string) (m manifest, stderr string, err error) {
	cmd := exec.Command(debianPython, "reader/coffer_reader.py", dir, secret, "--json")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	return m, errs.String(), err
}

// same compares two manifests; the plain paths, which only one side has, do not count.
func sameManifest(t *testing.T, got, want manifest) {
	t.Helper()
	if len(want.Entries) == 0 {
		t.Fatal("nothing is expected: the manifest is broken")
	}
	byPath := map[string]manifestEntry{}
	for _, e := range got.Entries {
		e.path = ""
		byPath[e.Path] = e
	}
	for i, e := range want.Entries {
		e.path = ""
		if g, ok := byPath[e.Path]; !ok {
			t.Errorf("%s is missing", e.Path)
		} else if !reflect.DeepEqual(g, e) {
			t.Errorf("%s:\n got %+v\nwant %+v", e.Path, g, e)
		} else if i < len(got.Entries) && got.Entries[i].Path != e.Path {
			t.Errorf("%s stands in another place", e.Path)
		}
		delete(byPath, e.Path)
	}
	for path := range byPath {
		t.Errorf("%s should not be there", path)
	}
}
