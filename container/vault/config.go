package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
)

const (
	configFormat  = "coffer-vault"
	formatVersion = 1

	maxConfigSize = 1 << 20
	maxSlots      = 32 // each costs one key derivation at a wrong passphrase

	trailerLabel = "#hmac-sha256 "
	trailerSize  = len(trailerLabel) + 2*sha256.Size + 1

	// created carries whole seconds in UTC, so that one point in time has one spelling.
	timeLayout = "2006-01-02T15:04:05Z"
)

// Config is a parsed config file (FORMAT.md section 9). Nothing in it is authentic before Unlock has succeeded; until then it
// serves for finding the key slots only. The exported fields are for reading; a Config does not change and is safe for
// concurrent use.
type Config struct {
	VaultID    keys.VaultID
	Commitment [32]byte // of the vault master key
	Params     keys.FileParams
	ROCompat   uint32 // unknown bits here allow opening for reading only
	Compat     uint32
	Created    time.Time
	Slots      []Slot

	// Derive runs the key derivation of Unlock; nil stands for DeriveInProcess. Set it before the first use.
	Derive Deriver

	body    []byte // the exact bytes under the MAC
	mac     [sha256.Size]byte
	warning error // *FallbackError or nil
	differs bool  // config and config.bak are not the same bytes
}

// Slot is one wrapped copy of the vault master key.
type Slot struct {
	ID         [8]byte
	Kind       string // KindPassphrase, KindKeyFile or KindAge
	Label      string // may be empty
	Created    time.Time
	KDF        KDF    // of a passphrase
	Recipient  string // of an age slot, as its encoding
	AgeFile    []byte // of an age slot
	Salt       [saltSize]byte
	Commitment [32]byte // of the key-encrypting key
	Nonce      [24]byte
	Wrapped    [48]byte
}

// Warning returns a *FallbackError when config was missing or damaged and c was read from config.bak, else nil. Whoever
// mounts shows it; the next Open for writing puts config right.
func (c *Config) Warning() error { return c.warning }

// BackupDiffers tells whether config.bak is not the same as config, so that the next Open for writing will make it so.
func (c *Config) BackupDiffers() bool { return c.differs }

// GeometryID returns the geometry that new containers get (FORMAT.md section 4).
func (c *Config) GeometryID() uint8 {
	g, err := container.GeometryFor(int(c.Params.SegmentSize), int(c.Params.FrameSize))
	if err != nil {
		return 0
	}
	return g.ID
}

// VaultParams returns the parameters by name, as Create took them.
func (c *Config) VaultParams() Params { return paramsOf(c.Params) }

// authenticate checks that the whole config was written by a holder of the vault master key behind ring.
func (c *Config) authenticate(ring *keys.Ring) error {
	if commitment := ring.Commitment(); !hmac.Equal(commitment[:], c.Commitment[:]) {
		return fmt.Errorf("vault: commitment of the master key: %w", ErrTampered)
	}
	if mac := configMAC(ring, c.body); !hmac.Equal(mac[:], c.mac[:]) {
		return fmt.Errorf("vault: MAC of config: %w", ErrTampered)
	}
	return nil
}

func configMAC(ring *keys.Ring, body []byte) (sum [sha256.Size]byte) {
	key := ring.Config()
	defer clear(key)
	h := hmac.New(sha256.New, key)
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

// seal encodes the fields of c anew and puts the MAC under them.
func (c *Config) seal(ring *keys.Ring) error {
	body, err := encodeConfig(c)
	if err != nil {
		return err
	}
	c.body, c.mac = body, configMAC(ring, body)
	return nil
}

// file returns the bytes of the config file: the JSON object, a newline, and the trailer over both.
func (c *Config) file() []byte {
	b := make([]byte, 0, len(c.body)+trailerSize)
	b = append(b, c.body...)
	b = append(b, trailerLabel...)
	b = hex.AppendEncode(b, c.mac[:])
	return append(b, '\n')
}
