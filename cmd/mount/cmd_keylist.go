package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/vault"
)

func (a *app) keyListCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list VAULT",
		Aliases: []string{"ls"},
		Short:   "List the key slots, without a secret",
		Args:    exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			_, cfg, err := a.loadVault(args[0])
			if err != nil {
				return err
			}
			slots := describeSlots(cfg)
			if asJSON {
				return a.printJSON(slots)
			}
			return printSlots(a.stdout, slots)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// slotInfo is a key slot without a secret. The names of the JSON fields are stable.
type slotInfo struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"`
	Label     string    `json:"label,omitempty"`
	Created   time.Time `json:"created"`
	KDF       *kdfInfo  `json:"kdf,omitempty"`       // of a passphrase
	Recipient string    `json:"recipient,omitempty"` // of an age slot
}

func describeSlots(cfg *vault.Config) []slotInfo {
	slots := []slotInfo{}
	for _, s := range cfg.Slots {
		slots = append(slots, describeSlot(s))
	}
	return slots
}

func describeSlot(s vault.Slot) slotInfo {
	info := slotInfo{ID: hex.EncodeToString(s.ID[:]), Kind: s.Kind, Label: s.Label, Created: s.Created, Recipient: s.Recipient}
	if s.Kind == vault.KindPassphrase {
		info.KDF = &kdfInfo{Name: "argon2id", Time: s.KDF.Time, MemoryKiB: s.KDF.MemoryKiB, Threads: s.KDF.Threads}
	}
	return info
}

// detail is what there is to say of a kind. A recipient of the post-quantum hybrid has 2000 letters: --json has them all.
func (s slotInfo) detail() string {
	const most = 80
	switch {
	case s.KDF != nil:
		return fmt.Sprintf("%s, %d MiB, %d passes, %d lanes", s.KDF.Name, s.KDF.MemoryKiB>>10, s.KDF.Time, s.KDF.Threads)
	case len(s.Recipient) > most:
		return s.Recipient[:most] + "…"
	}
	return s.Recipient
}

// line is a slot in the list of info.
func (s slotInfo) line() string {
	line := s.ID + ", " + s.Kind
	if s.Label != "" {
		line += fmt.Sprintf(" %q", s.Label)
	}
	if detail := s.detail(); detail != "" {
		line += ": " + detail
	}
	return line + "; created " + s.Created.Format(time.RFC3339)
}

func printSlots(w io.Writer, slots []slotInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "ID\tKIND\tCREATED\tLABEL\tDETAIL\n")
	for _, s := range slots {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.ID, s.Kind, s.Created.Format(time.RFC3339), oneLine(s.Label), s.detail())
	}
	return t.Flush()
}
