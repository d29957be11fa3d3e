package main

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/suite"
)

// speedRow is how fast this machine seals and opens frames of one size. Rates are in MiB (2^20 bytes) per second. The names of the JSON fields are stable.
type speedRow struct {
	Suite   string  `json:"suite"`
	Frame   int     `json:"frame_size"`
	SealOne float64 `json:"seal_one_core"`
	SealAll float64 `json:"seal_all_cores"`
	OpenOne float64 `json:"open_one_core"`
	OpenAll float64 `json:"open_all_cores"`
}

// speedReport is what `speed` prints.
type speedReport struct {
	Cores   int        `json:"cores"`
	Rows    []speedRow `json:"rows"`
	Default string     `json:"default_suite"` // of init
	Fastest string     `json:"fastest_suite"` // at init's frame size, one core
}

func (a *app) speedCmd() *cobra.Command {
	var asJSON bool
	var each time.Duration
	cmd := &cobra.Command{
		Use:   "speed",
		Short: "Measure how fast this machine encrypts and decrypts",
		Long: `Measure how fast this machine seals and opens frames: for each suite and frame size, on one core and on all of them. It says what init would choose, and whether
another suite is faster here. No disk takes part in it.`,
		Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			if each <= 0 {
				return failf(exitUsage, "give a duration such as 100ms", "--time %s is not positive", each)
			}
			r, err := a.measureSpeed(each)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(r)
			}
			return r.print(a.stdout)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&each, "time", 50*time.Millisecond, "measure for `DURATION` each of 40 rates")
	return cmd
}

// fasterBy is how much faster another suite must be to be named: what is less is noise.
const fasterBy = 1.15

func (a *app) measureSpeed(each time.Duration) (speedReport, error) {
	r := speedReport{Cores: runtime.GOMAXPROCS(0), Default: suite.XAES256GCM.String(), Fastest: suite.XAES256GCM.String()}
	best := 0.0
	for _, id := range []suite.ID{suite.XAES256GCM, suite.XChaCha20Poly1305} {
		for _, frame := range container.AllowedFrameSizes {
			row := speedRow{Suite: id.String(), Frame: frame}
			for _, m := range []struct {
				to    *float64
				cores int
				open  bool
			}{{&row.SealOne, 1, false}, {&row.SealAll, r.Cores, false}, {&row.OpenOne, 1, true}, {&row.OpenAll, r.Cores, true}} {
				if a.ctx.Err() != nil {
					return r, errInterrupted()
				}
				var err error
				if *m.to, err = frameRate(id, frame, m.cores, m.open, each); err != nil {
					return r, err
				}
			}
			r.Rows = append(r.Rows, row)
			if frame == container.HighParallelization && row.SealOne > best*fasterBy {
				best, r.Fastest = row.SealOne, row.Suite
			}
		}
	}
	return r, nil
}

// frameRate seals or opens one frame over and over on so many cores, and returns MiB per second of all of them together.
func frameRate(id suite.ID, frame, cores int, open bool, each time.Duration) (float64, error) {
	c, err := suite.New(id, make([]byte, suite.KeySize))
	if err != nil {
		return 0, err
	}
	sealer, err := c.Sealer()
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	rates, errs := make([]float64, cores), make([]error, cores)
	for i := range cores {
		wg.Go(func() {
			plain, ad, nonce := make([]byte, frame, frame+suite.TagSize), make([]byte, 80), new([suite.NonceSize]byte)
			sealed, err := sealer.Seal(make([]byte, 0, frame+suite.TagSize), plain, ad, nonce)
			start, n := time.Now(), 0
			for ; err == nil && time.Since(start) < each; n++ {
				if open {
					_, err = c.Open(plain[:0], nonce[:], sealed, ad)
				} else {
					sealed, err = sealer.Seal(sealed[:0], plain, ad, nonce)
				}
			}
			rates[i], errs[i] = float64(n)*float64(frame)/(1<<20)/time.Since(start).Seconds(), err
		})
	}
	wg.Wait()
	total := 0.0
	for i := range cores {
		if errs[i] != nil {
			return 0, errs[i]
		}
		total += rates[i]
	}
	return total, nil
}

func (r *speedReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "suite\tframe\tseal, 1 core\t%d cores\topen, 1 core\t%d cores\t\n", r.Cores, r.Cores)
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%d KiB\t%.0f\t%.0f\t%.0f\t%.0f\tMiB/s\n", row.Suite, row.Frame>>10, row.SealOne, row.SealAll, row.OpenOne, row.OpenAll)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ncoffer init chooses %s, segments of 64 KiB and frames of 4 KiB.\n", r.Default)
	if r.Fastest != r.Default {
		fmt.Fprintf(w, "This machine is faster with: coffer init --suite %s\n", r.Fastest)
	}
	return nil
}
