package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// Recover gives the vault at path a new passphrase by its recovery key, and a new config where that is lost, damaged or not
// authentic. An authentic config (or config.bak) keeps all but its passphrase slots, which are replaced by one. Otherwise the
// vault is walked for a container that the recovery key opens, whose header has everything that a config holds; what stood in
// the place of config is kept as config.damaged, to be looked at and removed by hand. A zero KDF stands for DefaultKDF. A lost
// state is rebuilt by the next Open.
//
// Errors: those of keys.DecodeRecovery; ErrEmptyPassphrase; ErrRecoveryKey (the key is of another vault); ErrNoContainer
// (there is nothing to rebuild a config from); ErrVersion, ErrFeature (the config is of a newer program); or the host's. Unless
// it fails while writing, the vault is as before then.
func Recover(path, recoveryKey string, passphrase []byte, k KDF, derive Deriver) error {
	if len(passphrase) == 0 {
		return ErrEmptyPassphrase
	}
	vmk, err := keys.DecodeRecovery(recoveryKey)
	if err != nil {
		return err
	}
	mk, err := keys.MasterKeyFrom(vmk)
	clear(vmk)
	if err != nil {
		return err
	}
	defer mk.Destroy()
	if k == (KDF{}) {
		k = DefaultKDF()
	}
	root, err := disk.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("vault: recover: %w", err)
	}
	defer root.Close()
	c, good, err := recoverConfig(root, mk)
	if err != nil {
		return err
	}
	if c.ROCompat != 0 {
		return fmt.Errorf("vault: recover: ro-compat features %#x: %w", c.ROCompat, ErrFeature)
	}
	slot, err := newSlot(mk, c.VaultID, passphrase, k, derive, time.Now())
	if err != nil {
		return err
	}
	dir, err := root.OpenDir(cofferDir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := root.Mkdir(cofferDir, cofferDirMode); err != nil {
			return fmt.Errorf("vault: recover: %w", err)
		}
		if err := root.Sync(); err != nil {
			return fmt.Errorf("vault: recover: %w", err)
		}
		dir, err = root.OpenDir(cofferDir)
	}
	if err != nil {
		return fmt.Errorf("vault: recover: %w", err)
	}
	defer dir.Close()
	l, err := lockConfig(path, dir)
	if err != nil {
		return err
	}
	defer l.close()
	if !good {
		c.warning = &FallbackError{Err: ErrConfig} // config is to be kept
	}
	return replaceSlots(dir, c, mk, []Slot{slot})
}

// recoverConfig returns an authentic config, or one without slots made from a container. good tells that the file config
// itself was authentic.
func recoverConfig(root disk.Dir, mk *keys.MasterKey) (c *Config, good bool, err error) {
	otherKey := false // a config is well formed and the key does not belong to it
	dir, err := root.OpenDir(cofferDir)
	switch {
	case err == nil:
		defer dir.Close()
		for _, name := range []string{configName, backupName} {
			c, err := readConfig(dir, name)
			switch {
			case errors.Is(err, ErrVersion), errors.Is(err, ErrFeature), errors.Is(err, fs.ErrPermission):
				return nil, false, err
			case err != nil:
				continue
			}
			ring := keys.NewRing(mk, c.VaultID)
			err = c.authenticate(ring)
			ring.Destroy()
			if err == nil {
				return c, name == configName, nil
			}
			otherKey = true
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("vault: recover: %w", err)
	}
	p, err := findContainer(root, mk)
	if errors.Is(err, ErrNoContainer) && otherKey {
		err = fmt.Errorf("vault: recover: %w", ErrRecoveryKey)
	}
	if err != nil {
		return nil, false, err
	}
	ring := keys.NewRing(mk, p.vault)
	defer ring.Destroy()
	return &Config{VaultID: p.vault, Commitment: ring.Commitment(), Params: p.params, Created: time.Now()}, false, nil
}

// Container header, as much of it as a config is made from (FORMAT.md section 7). Package container has the whole.
const (
	headerMagic  = "COFFERC1"
	headerLabel  = "coffer header v1"
	headerSize   = 4096
	headerMACAt  = headerSize - sha256.Size
	reservedAt   = 174
	headerBodyAt = 512
)

type probe struct {
	vault      keys.VaultID
	id         keys.ObjectID
	params     keys.FileParams
	commitment [32]byte
}

// findContainer walks the tree until a container proves authentic under mk.
func findContainer(root disk.Dir, mk *keys.MasterKey) (probe, error) {
	var hit probe
	errFound := errors.New("found")
	others := 0
	unread, err := walk(root, struct{}{}, func(d disk.Dir, up struct{}, name string, typ uint8) (struct{}, error) {
		if typ != unix.DT_REG {
			return up, nil
		}
		b, err := readHeader(d, name)
		if err != nil {
			return up, nil // too short, unreadable or gone: the next one may do
		}
		p, err := parseHeader(b)
		if err != nil {
			return up, nil
		}
		if !p.authentic(b, mk) {
			others++
			return up, nil
		}
		hit = p
		return up, errFound
	})
	switch {
	case errors.Is(err, errFound):
		return hit, nil
	case err != nil:
		return probe{}, err
	case others > 0:
		return probe{}, fmt.Errorf("vault: recover: none of %d containers opens: %w", others, ErrRecoveryKey)
	case unread != nil:
		return probe{}, fmt.Errorf("vault: recover: %w: %w", ErrNoContainer, unread)
	}
	return probe{}, fmt.Errorf("vault: recover: %w", ErrNoContainer)
}

func readHeader(d disk.Dir, name string) (*[headerSize]byte, error) {
	f, err := d.Open(name, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := new([headerSize]byte)
	_, err = f.ReadAt(b[:], 0)
	return b, err
}

var errNoHeader = errors.New("not a container of version 1")

// parseHeader reads what can be read without a key.
func parseHeader(b *[headerSize]byte) (probe, error) {
	le := binary.LittleEndian
	var zero [4]byte
	c := crc32.Update(0, castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, zero[:])
	c = crc32.Update(c, castagnoli, b[12:])
	p := probe{
		vault: keys.VaultID(b[40:56]), id: keys.ObjectID(b[56:72]), commitment: [32]byte(b[72:104]),
		params: keys.FileParams{
			Suite: suite.ID(b[14]), Digest: b[15], SegmentSize: le.Uint32(b[16:]), FrameSize: le.Uint32(b[20:]), Epoch: le.Uint32(b[36:]),
		},
	}
	if string(b[:8]) != headerMagic || c != le.Uint32(b[8:]) || le.Uint16(b[12:]) != formatVersion || le.Uint32(b[24:]) != 0 ||
		!p.params.Suite.Valid() || p.params.Digest < 1 || int(p.params.Digest) > len(digests) ||
		geometryID(p.params.SegmentSize, p.params.FrameSize) == 0 || !allZero(b[reservedAt:headerBodyAt]) {
		return probe{}, errNoHeader
	}
	return p, nil
}

// authentic tells whether the header was written under mk: the commitment holds the parameters, the HMAC the rest.
func (p *probe) authentic(b *[headerSize]byte, mk *keys.MasterKey) bool {
	ring := keys.NewRing(mk, p.vault)
	defer ring.Destroy()
	k := ring.File(p.id, p.params)
	defer k.Destroy()
	if !hmac.Equal(k.Commitment[:], p.commitment[:]) {
		return false
	}
	var zero [4]byte
	h := hmac.New(sha256.New, k.Auth[:])
	h.Write([]byte(headerLabel)) // 16 bytes as it is
	h.Write(b[:8])
	h.Write(zero[:])
	h.Write(b[12:headerMACAt])
	return hmac.Equal(h.Sum(nil), b[headerMACAt:])
}
