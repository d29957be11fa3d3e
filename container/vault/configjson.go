package vault

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// The JSON of config, keys in the order of FORMAT.md section 9.
type configJSON struct {
	Format      string            `json:"format"`
	Version     uint32            `json:"version"`
	Features    featuresJSON      `json:"features"`
	VaultID     string            `json:"vault_id"`
	Commitment  string            `json:"commitment"`
	KeyEpoch    uint32            `json:"key_epoch"`
	Suite       string            `json:"suite"`
	Digest      string            `json:"digest"`
	SegmentSize uint32            `json:"segment_size"`
	FrameSize   uint32            `json:"frame_size"`
	Created     string            `json:"created"`
	Slots       []json.RawMessage `json:"slots"` // of slotJSON, by kind
}

type featuresJSON struct {
	Incompat uint32 `json:"incompat"`
	ROCompat uint32 `json:"ro_compat"`
	Compat   uint32 `json:"compat"`
}

// Shapes of the same, for what encoding/json lets pass: keys in another case, repeated or missing keys, nulls.
var (
	featuresShape = shape{"incompat": nil, "ro_compat": nil, "compat": nil}
	configShape   = shape{"format": nil, "version": nil, "features": &field{shape: featuresShape}, "vault_id": nil, "commitment": nil,
		"key_epoch": nil, "suite": nil, "digest": nil, "segment_size": nil, "frame_size": nil, "created": nil,
		"slots": &field{slots: true}}
)

// shape lists the keys of an object. A nil field is a string or a number that is required.
type shape map[string]*field

type field struct {
	shape    shape // an object
	optional bool  // a string or a number
	slots    bool  // the array of slots, which parseSlot looks into
}

// parseConfig reads a whole config file. It believes version and features first, then the outer form, then the keys, then
// the values, and nothing of it is authentic yet. Errors wrap ErrConfig, ErrVersion or ErrFeature.
func parseConfig(data []byte) (*Config, error) {
	c, err := parseConfigFile(data)
	if err != nil && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrFeature) && !errors.Is(err, ErrConfig) {
		err = fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err != nil {
		return nil, fmt.Errorf("vault: parse config: %w", err)
	}
	return c, nil
}

func parseConfigFile(data []byte) (*Config, error) {
	if len(data) > maxConfigSize {
		return nil, fmt.Errorf("larger than %d bytes", maxConfigSize)
	}
	if err := probeConfig(data); err != nil {
		return nil, err
	}
	c := new(Config)
	n := len(data) - trailerSize
	if n < 0 {
		return nil, errors.New("no MAC trailer")
	}
	body, trailer := data[:n], string(data[n:])
	sum, ok := strings.CutPrefix(trailer, trailerLabel)
	if !ok || !bytes.HasPrefix(body, []byte("{")) || !bytes.HasSuffix(body, []byte("}\n")) {
		return nil, errors.New("no MAC trailer")
	}
	sum, ok = strings.CutSuffix(sum, "\n")
	if err := decodeHex(c.mac[:], sum); err != nil || !ok {
		return nil, errors.New("malformed MAC trailer")
	}
	var j configJSON
	if err := decodeStrict(body, configShape, &j); err != nil {
		return nil, err
	}
	c.body = bytes.Clone(body)
	return c, c.fromJSON(&j)
}

// probeConfig reads what tells whether this program may go on: the rest of a newer config can look like anything.
func probeConfig(data []byte) error {
	var p struct {
		Format   string `json:"format"`
		Version  uint32 `json:"version"`
		Features struct {
			Incompat uint64 `json:"incompat"`
		} `json:"features"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&p); err != nil {
		return err
	}
	switch {
	case p.Format != configFormat:
		return errors.New("not the config of a coffer vault")
	case p.Version != formatVersion:
		return fmt.Errorf("version %d: %w", p.Version, ErrVersion)
	case p.Features.Incompat != 0:
		return fmt.Errorf("incompat features %#x: %w", p.Features.Incompat, ErrFeature)
	}
	return nil
}

// decodeStrict decodes one JSON object of exactly the given shape into dst.
func decodeStrict(data []byte, s shape, dst any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := s.walk(dec); err != nil {
		return err
	}
	return json.Unmarshal(data, dst) // refuses whatever follows the object
}

func (s shape) walk(dec *json.Decoder) error {
	if err := expect(dec, '{'); err != nil {
		return err
	}
	seen := make(map[string]bool, len(s))
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		f, known := s[key]
		if !known {
			return fmt.Errorf("unknown key %.40q", key)
		}
		if seen[key] {
			return fmt.Errorf("key %q twice", key)
		}
		seen[key] = true
		if err := f.walk(dec); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	for key, f := range s {
		if !seen[key] && (f == nil || !f.optional) {
			return errors.New("a key is missing")
		}
	}
	return expect(dec, '}')
}

func (f *field) walk(dec *json.Decoder) error {
	switch {
	case f == nil, f.optional:
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		switch tok.(type) {
		case string, json.Number:
			return nil
		}
		return errors.New("neither a string nor a number")
	case !f.slots:
		return f.shape.walk(dec)
	}
	if err := expect(dec, '['); err != nil {
		return err
	}
	for n := 0; dec.More(); n++ {
		if n == maxSlots {
			return fmt.Errorf("more than %d slots", maxSlots)
		}
		var slot json.RawMessage
		if err := dec.Decode(&slot); err != nil {
			return err
		}
	}
	return expect(dec, ']')
}

func expect(dec *json.Decoder, d json.Delim) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok != d {
		return fmt.Errorf("expected %v", d)
	}
	return nil
}

// decodeHex fills dst from lower-case digits of exactly its length.
func decodeHex(dst []byte, s string) error {
	if len(s) != 2*len(dst) || strings.ToLower(s) != s {
		return fmt.Errorf("not %d lower-case hex digits", 2*len(dst))
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeLayout, s)
	if err == nil && t.Format(timeLayout) != s {
		err = errors.New("malformed time")
	}
	return t, err
}

func (c *Config) fromJSON(j *configJSON) error {
	c.ROCompat, c.Compat = j.Features.ROCompat, j.Features.Compat
	id, err := suite.Parse(j.Suite)
	digest, derr := container.ParseDigest(j.Digest)
	if err != nil || derr != nil {
		return fmt.Errorf("suite %.40q, digest %.40q: %w", j.Suite, j.Digest, ErrFeature)
	}
	c.Params = keys.FileParams{Suite: id, Digest: uint8(digest), SegmentSize: j.SegmentSize, FrameSize: j.FrameSize, Epoch: j.KeyEpoch}
	if j.FrameSize == 0 || c.GeometryID() == 0 {
		return fmt.Errorf("segment size %d, frame size %d: %w", j.SegmentSize, j.FrameSize, ErrFeature)
	}
	if err := decodeHex(c.VaultID[:], j.VaultID); err != nil {
		return fmt.Errorf("vault_id: %w", err)
	}
	if err := decodeHex(c.Commitment[:], j.Commitment); err != nil {
		return fmt.Errorf("commitment: %w", err)
	}
	if c.Created, err = parseTime(j.Created); err != nil {
		return fmt.Errorf("created: %w", err)
	}
	if len(j.Slots) == 0 {
		return errors.New("no key slot")
	}
	c.Slots = make([]Slot, len(j.Slots))
	ids := make(map[[8]byte]bool)
	for i := range j.Slots {
		if c.Slots[i], err = parseSlot(j.Slots[i]); err != nil {
			return fmt.Errorf("slot %d: %w", i, err)
		}
		if ids[c.Slots[i].ID] {
			return fmt.Errorf("slot %d: id used twice", i)
		}
		ids[c.Slots[i].ID] = true
	}
	return nil
}

// encodeConfig returns the bytes that the MAC is computed over: the JSON object and a newline.
func encodeConfig(c *Config) ([]byte, error) {
	j := configJSON{
		Format: configFormat, Version: formatVersion, Features: featuresJSON{ROCompat: c.ROCompat, Compat: c.Compat},
		VaultID: hex.EncodeToString(c.VaultID[:]), Commitment: hex.EncodeToString(c.Commitment[:]), KeyEpoch: c.Params.Epoch,
		Suite: c.Params.Suite.String(), Digest: container.DigestAlg(c.Params.Digest).String(), SegmentSize: c.Params.SegmentSize, FrameSize: c.Params.FrameSize,
		Created: c.Created.UTC().Format(timeLayout), Slots: make([]json.RawMessage, len(c.Slots)),
	}
	for i := range c.Slots {
		var err error
		if j.Slots[i], err = json.Marshal(c.Slots[i].toJSON()); err != nil {
			return nil, fmt.Errorf("vault: encode config: %w", err)
		}
	}
	body, err := json.MarshalIndent(&j, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("vault: encode config: %w", err)
	}
	if len(body) > maxConfigSize-trailerSize-1 {
		return nil, fmt.Errorf("vault: encode config: %d bytes: %w", len(body), ErrSlots)
	}
	return append(body, '\n'), nil
}
