package vault

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	kdfArgon2id = "argon2id"
	kdfHKDF     = "hkdf-sha256"
)

// slotJSON has the keys of all kinds, in the order they are written in; which of them a kind has is its shape's to say.
type slotJSON struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	Label      string `json:"label,omitempty"`
	Created    string `json:"created"`
	Recipient  string `json:"recipient,omitempty"`
	AgeFile    string `json:"age_file,omitempty"`
	KDF        string `json:"kdf"`
	Salt       string `json:"salt"`
	Time       uint32 `json:"time,omitempty"`
	MemoryKiB  uint32 `json:"memory_kib,omitempty"`
	Threads    uint32 `json:"threads,omitempty"`
	Commitment string `json:"commitment"`
	Nonce      string `json:"nonce"`
	Wrapped    string `json:"wrapped"`
}

var slotShapes = map[string]shape{
	KindPassphrase: slotShape("time", "memory_kib", "threads"),
	KindKeyFile:    slotShape(),
	KindAge:        slotShape("recipient", "age_file"),
}

// slotShape is what all kinds have, and more.
func slotShape(more ...string) shape {
	s := shape{"id": nil, "kind": nil, "label": &field{optional: true}, "created": nil, "kdf": nil, "salt": nil, "commitment": nil,
		"nonce": nil, "wrapped": nil}
	for _, key := range more {
		s[key] = nil
	}
	return s
}

// parseSlot decodes one slot. Its kind is believed first: the rest of an unknown one can look like anything.
func parseSlot(data []byte) (s Slot, err error) {
	var probe struct {
		Kind *string `json:"kind"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return s, err
	}
	if probe.Kind == nil {
		return s, errors.New("no kind")
	}
	shape, known := slotShapes[*probe.Kind]
	if !known {
		return s, fmt.Errorf("kind %.40q: %w", *probe.Kind, ErrFeature)
	}
	var j slotJSON
	if err := decodeStrict(data, shape, &j); err != nil {
		return s, err
	}
	return s, s.fromJSON(&j)
}

func (s *Slot) fromJSON(j *slotJSON) (err error) {
	kdf := kdfHKDF
	if j.Kind == KindPassphrase {
		kdf = kdfArgon2id
	}
	if j.KDF != kdf {
		return fmt.Errorf("kind %.40q, kdf %.40q: %w", j.Kind, j.KDF, ErrFeature)
	}
	s.Kind, s.Label, s.Recipient = j.Kind, j.Label, j.Recipient
	if err := CheckLabel(s.Label); err != nil {
		return err
	}
	for _, f := range []struct {
		dst []byte
		src string
	}{{s.ID[:], j.ID}, {s.Salt[:], j.Salt}, {s.Commitment[:], j.Commitment}, {s.Nonce[:], j.Nonce}, {s.Wrapped[:], j.Wrapped}} {
		if err := decodeHex(f.dst, f.src); err != nil {
			return err
		}
	}
	switch s.Kind {
	case KindPassphrase:
		err = s.kdfFromJSON(j)
	case KindAge:
		err = s.ageFromJSON(j)
	}
	if err != nil {
		return err
	}
	s.Created, err = parseTime(j.Created)
	return err
}

func (s *Slot) kdfFromJSON(j *slotJSON) error {
	if j.Threads > maxThreads {
		return fmt.Errorf("threads %d: %w", j.Threads, ErrKDF)
	}
	s.KDF = KDF{Time: j.Time, MemoryKiB: j.MemoryKiB, Threads: uint8(j.Threads)}
	return s.KDF.check()
}

func (s *Slot) ageFromJSON(j *slotJSON) (err error) {
	if err := checkRecipient(j.Recipient); err != nil {
		return err
	}
	s.AgeFile, err = base64.StdEncoding.Strict().DecodeString(j.AgeFile)
	if err == nil && (len(s.AgeFile) == 0 || len(s.AgeFile) > maxAgeFile || base64.StdEncoding.EncodeToString(s.AgeFile) != j.AgeFile) {
		err = errors.New("age_file: malformed")
	}
	return err
}

func (s *Slot) toJSON() slotJSON {
	j := slotJSON{
		ID: hex.EncodeToString(s.ID[:]), Kind: s.Kind, Label: s.Label, Created: s.Created.UTC().Format(timeLayout),
		Recipient: s.Recipient, AgeFile: base64.StdEncoding.EncodeToString(s.AgeFile), KDF: kdfHKDF,
		Salt: hex.EncodeToString(s.Salt[:]), Commitment: hex.EncodeToString(s.Commitment[:]),
		Nonce: hex.EncodeToString(s.Nonce[:]), Wrapped: hex.EncodeToString(s.Wrapped[:]),
	}
	if s.Kind == KindPassphrase {
		j.KDF, j.Time, j.MemoryKiB, j.Threads = kdfArgon2id, s.KDF.Time, s.KDF.MemoryKiB, uint32(s.KDF.Threads)
	}
	return j
}
