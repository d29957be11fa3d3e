package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
)

// TestGoldenDamage: each small damage to a golden vault makes both readers refuse.
func TestGoldenDamage(t *testing.T) {
	needPython(t)
	spec := goldenVaults[0]
	dir, _ := spec.unpack(t)
	pass, _ := spec.secrets(t)
	g, err := openGo(dir, pass, "", vault.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
	host := func(name string) string {
		e, err := g.tree.Root().Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return hostNameOf(g, g.tree.Root(), e)
	}
	geo := g.engine.Geometry()
	group := int64(container.BlockSize/max(512, roundUpPower(128+56*geo.Frames))) * int64(geo.SegmentSize)
	meta := func(j int64) int64 { return geo.HostLength(j*group+1) - 1 - container.BlockSize }

	tests := []struct {
		name   string
		damage func(dir string) error
	}{
		{"header_plain_size", flipBit(host("hello"), 112)},
		{"header_reserved", flipBit(host("hello"), 300)},
		{"header_time", flipBit(host("hello"), 150)},
		{"header_hmac", flipBit(host("far"), 4095)},
		{"forged_header_plain_size", forgeHeader(host("hello"), 112)},
		{"forged_header_reserved", forgeHeader(host("hello"), 300)},
		{"forged_header_pin", forgeHeader(host("far"), 512)},
		{"forged_inline_ciphertext", forgeHeader(host("hello"), 512+56+3)},
		{"header_pin", flipBit(host("far"), 512)},
		{"inline_entry", flipBit(host("hello"), 512+8)},
		{"inline_ciphertext", flipBit(host("hello"), 512+56+3)},
		{"single_record", flipBit(host("segment"), 512+128)},
		{"single_ciphertext", flipBit(host("segment"), 8192+70)},
		{"meta_block_zeros", flipBit(host("far"), meta(0)+4000)},
		{"meta_block_entry", flipBit(host("far"), meta(32)+130)},
		{"meta_block_frame", flipBit(host("far"), meta(32)+container.BlockSize+5)},
		{"node_of_level_1", flipBit(host("far"), meta(32)-container.BlockSize+70)},
		{"node_of_level_2", flipBit(host("far"), meta(32)-2*container.BlockSize+70)},
		{"node_of_level_3", flipBit(host("far"), meta(32)-3*container.BlockSize+70)},
		{"length_one_more", resizeBy(host("segment"), 1)},
		{"length_one_less", resizeBy(host("hole"), -1)},
		{"sidecar", flipBit(names.SidecarName(host(goldenLongName)), 20)},
		{"sidecar_lost", func(dir string) error { return os.Remove(filepath.Join(dir, names.SidecarName(host(goldenLongName)))) }},
		{"name", func(dir string) error {
			old := host("hello")
			return os.Rename(filepath.Join(dir, old), filepath.Join(dir, otherLetter(old, 40)))
		}},
		{"names_swapped", func(dir string) error { return swapNames(dir, host("hello"), host("segment")) }},
		{"type", func(dir string) error { return swapNames(dir, host("hello"), host("fifo")) }},
		{"moved_to_another_directory", func(dir string) error {
			return os.Rename(filepath.Join(dir, host("hello")), filepath.Join(dir, host("docs"), host("hello")))
		}},
		{"symlink_target", func(dir string) error {
			path := filepath.Join(dir, host("link"))
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return errors.Join(os.Remove(path), os.Symlink(otherLetter(target, 5), path))
		}},
		{"forged_state", forgeHeader(".coffer/state", 40)},
		{"forged_old_state", forgeBlock(".coffer/state", container.BlockSize, 40)},
		{"config_mac", flipBit(".coffer/config", -3)},
		{"config_text", replaceIn(".coffer/config", `"digest": "crc32c"`, `"digest": "sha256"`)},
		{"config_slot", replaceIn(".coffer/config", `"time": 1`, `"time": 2`)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, _ := spec.unpack(t)
			if err := test.damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := readByGo(dir, pass, ""); err == nil {
				t.Error("Go does not refuse it")
			} else {
				t.Logf("Go: %v", err)
			}
			if sum, _, err := checkGolden(dir, pass); err == nil && sum.Damage == 0 {
				t.Errorf("verify does not find it: %+v", sum)
			}
			_, stderr, err := readByPython(dir, "--passphrase-file="+spec.file(passFile))
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(stderr, "refused: ") {
				t.Errorf("the reader does not refuse it: %v\n%s", err, stderr)
			}
			t.Logf("reader: %s", stderr)
		})
	}
}

// flipBit turns one bit at an offset of a host file; a negative offset counts from the end.
func flipBit(name string, off int64) func(dir string) error {
	return func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if off < 0 {
			st, err := f.Stat()
			if err != nil {
				return err
			}
			off += st.Size()
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			return err
		}
		b[0] ^= 1
		_, err = f.WriteAt(b[:], off)
		return err
	}
}

// forgeHeader is flipBit in a header, with the CRC made to fit again: what is left to find it is the HMAC.
func forgeHeader(name string, off int64) func(dir string) error { return forgeBlock(name, 0, off) }

// forgeBlock is forgeHeader in the block that begins at base.
func forgeBlock(name string, base, off int64) func(dir string) error {
	return func(dir string) error {
		if err := flipBit(name, base+off)(dir); err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		block := make([]byte, container.BlockSize)
		if _, err := f.ReadAt(block, base); err != nil {
			return err
		}
		clear(block[8:12])
		binary.LittleEndian.PutUint32(block[8:], crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli)))
		_, err = f.WriteAt(block, base)
		return err
	}
}

func resizeBy(name string, by int64) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, st.Size()+by)
	}
}

func replaceIn(name, old, repl string) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(p, []byte(old)) {
			return fmt.Errorf("%s does not hold %s", name, old)
		}
		return os.WriteFile(path, bytes.Replace(p, []byte(old), []byte(repl), 1), 0o600)
	}
}

func swapNames(dir, a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, a), unix.AT_FDCWD, filepath.Join(dir, b), unix.RENAME_EXCHANGE)
}

func otherLetter(s string, i int) string {
	letter := "A"
	if s[i] == 'A' {
		letter = "B"
	}
	return s[:i] + letter + s[i+1:]
}
