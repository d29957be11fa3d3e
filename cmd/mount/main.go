package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(runAs(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}
