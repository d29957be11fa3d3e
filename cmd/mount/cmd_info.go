package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
)

// vaultInfo is what a vault is, without a secret. The names of the JSON fields are stable. Nothing in it is authentic: no key was at
// hand to check it with.
type vaultInfo struct {
	Path        string        `json:"path"`
	Version     int           `json:"version"`
	VaultID     string        `json:"vault_id"`
	Suite       string        `json:"suite"`
	Digest      string        `json:"digest"`
	SegmentSize uint32        `json:"segment_size"`
	FrameSize   uint32        `json:"frame_size"`
	Created     time.Time     `json:"created"`
	Slots       []slotInfo    `json:"slots"`
	Clean       *bool         `json:"clean"` // null: the state cannot be read
	InUse       bool          `json:"in_use"`
	ReadOnly    bool          `json:"in_use_read_only"`
	Holder      *vault.Holder `json:"holder"`
}

type kdfInfo struct {
	Name      string `json:"name"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
}

func (a *app) infoCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info VAULT",
		Short: "Say what a vault is, without a secret",
		Args:  exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			path, cfg, err := a.loadVault(args[0])
			if err != nil {
				return err
			}
			info := describe(path, cfg)
			if asJSON {
				return a.printJSON(info)
			}
			return info.print(a.stdout)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func describe(path string, cfg *vault.Config) *vaultInfo {
	p := cfg.VaultParams()
	info := &vaultInfo{
		Path: path, Version: formatVersion, VaultID: hex.EncodeToString(cfg.VaultID[:]),
		Suite: p.Suite, Digest: p.Digest, SegmentSize: p.SegmentSize, FrameSize: p.FrameSize,
		Created: cfg.Created, Slots: describeSlots(cfg),
	}
	if clean, ok := peekState(path); ok {
		info.Clean = &clean
	}
	lock := peekLock(path)
	info.InUse, info.ReadOnly = lock.Writer || lock.Reader, lock.Reader
	if lock.Holder.PID != 0 {
		info.Holder = &lock.Holder
	}
	return info
}

func (v *vaultInfo) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	segment, frame := sizeFlag(v.SegmentSize), sizeFlag(v.FrameSize)
	fmt.Fprintf(t, "vault\t%s\n", oneLine(v.Path))
	fmt.Fprintf(t, "format\tversion %d\n", v.Version)
	fmt.Fprintf(t, "id\t%s\n", v.VaultID)
	fmt.Fprintf(t, "created\t%s\n", v.Created.Format(time.RFC3339))
	fmt.Fprintf(t, "suite\t%s\n", v.Suite)
	fmt.Fprintf(t, "digest\t%s\n", v.Digest)
	fmt.Fprintf(t, "sizes\tsegment %s, frame %s\n", segment.String(), frame.String())
	for _, s := range v.Slots {
		fmt.Fprintf(t, "key slot\t%s\n", s.line())
	}
	fmt.Fprintf(t, "in use\t%s\n", v.usage())
	switch {
	case v.Clean == nil:
		fmt.Fprintf(t, "clean\tunknown: its state cannot be read\n")
	case *v.Clean:
		fmt.Fprintf(t, "clean\tyes\n")
	case v.InUse:
		fmt.Fprintf(t, "clean\tnot while it is mounted\n")
	default:
		fmt.Fprintf(t, "clean\tno: it was not cleanly unmounted\n")
	}
	return t.Flush()
}

func (v *vaultInfo) usage() string {
	switch {
	case v.Holder != nil:
		return fmt.Sprintf("by pid %d on %s, mounted at %s since %s", v.Holder.PID, oneLine(v.Holder.Host),
			oneLine(v.Holder.Mountpoint), v.Holder.Since.Format(time.RFC3339))
	case v.ReadOnly:
		return "mounted for reading"
	case v.InUse:
		return "yes"
	}
	return "no"
}

// peekState reads the clean flag of the newer of the two state slots (FORMAT.md section 10) that is whole. ok is false where neither
// is.
func peekState(path string) (clean, ok bool) {
	f, err := os.OpenFile(filepath.Join(path, ".coffer", "state"), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, false
	}
	defer f.Close()
	const slotSize = 4096
	var newest uint64
	for i := range int64(2) {
		var b [slotSize]byte
		if _, err := f.ReadAt(b[:], i*slotSize); err != nil {
			continue
		}
		sum := binary.LittleEndian.Uint32(b[8:])
		clear(b[8:12])
		if string(b[:8]) != "COFFERS1" || crc32.Checksum(b[:], crc32.MakeTable(crc32.Castagnoli)) != sum {
			continue
		}
		if seq := binary.LittleEndian.Uint64(b[16:]); !ok || seq > newest {
			newest, clean, ok = seq, b[14]&1 != 0, true
		}
	}
	return clean, ok
}
