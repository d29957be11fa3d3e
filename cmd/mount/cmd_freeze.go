package main

import (
	"time"

	"github.com/spf13/cobra"
)

func (a *app) freezeCmd() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "freeze MOUNTPOINT",
		Short: "Hold a mounted vault still for a snapshot or a copy of it",
		Long: `Bring everything that was written to MOUNTPOINT durably to the vault, and hold what would change it until coffer thaw, or for as long as --timeout
says. A copy or snapshot of the vault's directory that is made meanwhile is what an unmount would leave: it opens as any other vault does.
Files can be read meanwhile. Programs that write go on for as long as the kernel has memory for it, and then wait; those that sync, create,
remove, rename or close what they wrote wait at once, and keep others from looking up names in the directory that they change.

A copy that is made of a mounted vault without this opens with --recover, as after a power cut.`,
		Example: "  coffer freeze ~/plain && cp -a ~/vault /backup/; coffer thaw ~/plain",
		Args:    exactArgs("MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			if timeout <= 0 {
				return failf(exitUsage, "give a duration such as 60s", "--timeout %s is not positive", timeout)
			}
			m, err := findMount(args[0])
			if err != nil {
				return err
			}
			return give(m, order{Do: orderFreeze, Timeout: timeout}, "end it with: coffer thaw "+quote(m.mountpoint))
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "thaw by itself after `DURATION`")
	return cmd
}

func (a *app) thawCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "thaw MOUNTPOINT",
		Short: "End a freeze",
		Long:  `End a freeze of MOUNTPOINT. Where its time has run out before, this fails: a copy that was made meanwhile may not be what it should.`,
		Args:  exactArgs("MOUNTPOINT"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := findMount(args[0])
			if err != nil {
				return err
			}
			return give(m, order{Do: orderThaw}, "freeze again, with a longer --timeout, and repeat the copy")
		},
	}
}
