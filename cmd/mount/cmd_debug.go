package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

func (a *app) debugCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Show what lies below the files of a vault",
		Long:  "Show what a vault holds below its files. Nothing is changed.",
		Args:  cobra.ArbitraryArgs,
		RunE:  needsCommand("coffer debug journal"),
	}
	cmd.AddCommand(a.debugJournalCmd())
	return cmd
}

func (a *app) debugJournalCmd() *cobra.Command {
	var from unlockFlags
	var o vault.OpenOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "journal VAULT",
		Short: "Show the journal of a vault that was not cleanly unmounted",
		Long: `List the transactions of the journal that the next mount replays: for each its position, the object, how deep in the tree it was, how many
runs of how many bytes it writes to the host file, how many became holes, the length of the host file afterwards and its time; at the end, what the journal
ends at. --json has the sealed host names of the path, too.

The vault is opened for reading: it may be mounted with -o ro meanwhile, and not otherwise. Nothing is replayed and nothing written.

A journal that is damaged is shown as far as it goes; the exit code then says so.`,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.debugJournal(args[0], from, o, asJSON) },
	}
	from.register(cmd.Flags())
	cmd.Flags().BoolVar(&o.Recover, "recover", false, "look into a copy of a vault that was not cleanly unmounted")
	cmd.Flags().BoolVar(&o.ForceUnlock, "force-unlock", false, "ignore the lock of another host")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// journalInfo is a journal. The names of the JSON fields are stable.
type journalInfo struct {
	Pending      bool              `json:"pending"` // a session did not end cleanly
	ID           string            `json:"journal_id,omitempty"`
	Pieces       int               `json:"pieces"`
	Transactions []transactionInfo `json:"transactions"`
	Bytes        int64             `json:"bytes"` // of their heads and images
	Recycled     uint64            `json:"recycled_lsn"`
	End          uint64            `json:"end_lsn"`
	Torn         bool              `json:"torn"`
	Lost         bool              `json:"lost"`

	bad error // the first transaction that makes no sense
}

type transactionInfo struct {
	LSN        uint64     `json:"lsn"`
	Kind       string     `json:"kind"` // file, make, ended, removed, exchange, over, or malformed
	Object     string     `json:"object,omitempty"`
	Path       []string   `json:"path,omitempty"` // sealed host names
	Images     int        `json:"images"`
	Patches    int        `json:"patches"` // of blocks of which the log had an image
	ImageBytes int64      `json:"image_bytes"`
	Freed      int64      `json:"freed_bytes"`
	Length     *int64     `json:"length,omitempty"` // of the host file; null: as it was
	Mtime      *time.Time `json:"mtime,omitempty"`
	Error      string     `json:"error,omitempty"`
}

func (a *app) debugJournal(path string, from unlockFlags, o vault.OpenOptions, asJSON bool) error {
	path, cfg, err := a.loadVault(path)
	if err != nil {
		return err
	}
	if err := checkUnused(path, true); err != nil {
		return err
	}
	mk, _, err := a.unlock(path, cfg, from, "Passphrase")
	if err != nil {
		return err
	}
	defer mk.Destroy()
	o.ReadOnly, o.NoView = true, true
	o.Events = func(e event.Event) {
		if e.Err != nil {
			e.Note = strings.TrimSuffix(e.Err.Error()+"; "+e.Note, "; ")
		}
		a.say("%s: %s", oneLine(e.Object), oneLine(e.Note))
	}
	v, err := vault.Open(path, cfg, mk, o)
	if err != nil {
		return err
	}
	info, err := readJournal(v)
	if err = errors.Join(err, v.Close()); err != nil {
		return err
	}
	if asJSON {
		err = a.printJSON(info)
	} else {
		err = info.print(a.stdout)
	}
	switch {
	case err != nil:
		return err
	case info.Lost:
		return redo.ErrLost
	}
	return info.bad
}

// readJournal reads the journal that v is to be replayed from, if any.
func readJournal(v *vault.Vault) (*journalInfo, error) {
	info := &journalInfo{Transactions: []transactionInfo{}}
	c, pending := v.Pending()
	if !pending {
		return info, nil
	}
	info.Pending, info.ID = true, hex.EncodeToString(c.ID[:])
	r, err := journal.Open(c)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info.Pieces = r.Pieces()
	log, err := r.Each(func(t *journal.Transaction, _ func([]byte, int64) error) error {
		x, err := describeTransaction(t)
		if err != nil && info.bad == nil {
			info.bad = err
		}
		info.Transactions = append(info.Transactions, x)
		return nil
	})
	info.Bytes, info.Recycled, info.End, info.Torn, info.Lost = log.Bytes, uint64(log.Recycled), uint64(log.End), log.Torn, log.Lost
	if errors.Is(err, journal.ErrMalformed) { // shown as far as it goes
		info.bad, err = errors.Join(info.bad, err), nil
	}
	return info, err
}

// describeTransaction answers an error, too, where there is no sense in it.
func describeTransaction(t *journal.Transaction) (transactionInfo, error) {
	x := transactionInfo{LSN: uint64(t.LSN), ImageBytes: t.BulkLen}
	kind, err := redo.KindOf(t.Head)
	switch {
	case err != nil:
	case kind == redo.KindExchange:
		var e *redo.Exchange
		if e, err = redo.ParseExchange(t.Head); err == nil {
			x.Kind, x.Object = "exchange", fmt.Sprintf("%016x", e.ID)
			if e.Over {
				x.Kind = "over"
			}
		}
	case kind == redo.KindEnd:
		var e *redo.End
		if e, err = redo.ParseEnd(t.Head); err == nil {
			x.Kind, x.Object, x.Path = "ended", e.ID.String(), e.Path
			if e.Removed {
				x.Kind = "removed"
			}
		}
	default:
		var h *redo.Head
		if h, err = redo.Parse(t.Head); err == nil {
			x.file(h)
		}
	}
	if err != nil {
		x.Kind, x.Error = "malformed", err.Error()
	}
	return x, err
}

func (x *transactionInfo) file(h *redo.Head) {
	x.Kind, x.Object, x.Path, x.Images = "file", h.ID.String(), h.Path, len(h.Images)
	x.Patches = len(h.Patches)
	if h.Made != nil {
		x.Kind = "make"
	}
	for _, r := range h.Freed {
		x.Freed += r.Len
	}
	if h.Length >= 0 {
		x.Length = &h.Length
	}
	if h.Timed {
		at := time.Unix(h.Mtime.Unix()).UTC()
		x.Mtime = &at
	}
}

func (j *journalInfo) print(w io.Writer) error {
	switch {
	case !j.Pending:
		fmt.Fprintln(w, "no journal: the vault was cleanly unmounted, or its last session had none")
		return nil
	case j.Pieces == 0:
		fmt.Fprintln(w, "the journal is empty: nothing had been written to it")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "LSN\tKIND\tOBJECT\tDEPTH\tIMAGES\tPATCHES\tBYTES\tFREED\tLENGTH\tMTIME\n")
	for _, x := range j.Transactions {
		fmt.Fprintln(t, x.line())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d transactions, %d bytes, in %d pieces, up to %d; recycled up to %d\n", len(j.Transactions), j.Bytes, j.Pieces, j.End, j.Recycled)
	if j.Torn {
		fmt.Fprintln(w, "behind that is a part of something later, as a power cut leaves it")
	}
	if j.Lost {
		fmt.Fprintln(w, "LOST: transactions behind that had been durable, and are not there")
	}
	return nil
}

func (x *transactionInfo) line() string {
	depth, length, mtime := "-", "-", "-"
	if len(x.Path) > 0 {
		depth = fmt.Sprint(len(x.Path))
	}
	if x.Length != nil {
		length = fmt.Sprint(*x.Length)
	}
	if x.Mtime != nil {
		mtime = x.Mtime.Format(time.RFC3339Nano)
	}
	object := x.Object
	if object == "" {
		object = "-"
	}
	return fmt.Sprintf("%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s", x.LSN, x.Kind, object, depth, x.Images, x.Patches, x.ImageBytes, x.Freed, length, mtime)
}
