package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCmd writes the man pages, for those who package coffer: help is the one source of both.
func (a *app) manCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Hidden: true,
		Short:  "Write the man pages into a directory",
		Args:   exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same input, the same bytes
			if err := doc.GenManTree(root, manHeader("1"), args[0]); err != nil {
				return failf(exitOther, "give a directory that exists", "cannot write the man pages: %w", err)
			}
			f, err := os.Create(filepath.Join(args[0], helperName+".8"))
			if err != nil {
				return failf(exitOther, "give a directory that exists", "cannot write the man pages: %w", err)
			}
			defer f.Close()
			topic := a.fstabTopic()
			topic.Use, topic.DisableAutoGenTag = helperName, true
			if err := doc.GenMan(topic, manHeader("8"), f); err != nil {
				return failf(exitOther, "", "cannot write the man pages: %w", err)
			}
			return f.Close()
		},
	}
}

func manHeader(section string) *doc.GenManHeader {
	return &doc.GenManHeader{Section: section, Source: "Coffer", Manual: "Coffer"}
}
