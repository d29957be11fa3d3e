package main

import (
	"fmt"
	"net"
	"os"
)

// notifySystemd sends a state to the service manager that started this process, by the protocol of sd_notify(3): one datagram to the
// socket that $NOTIFY_SOCKET names. Without the variable it does nothing. The variable is then removed: it is not for our children.
func notifySystemd(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return err
	}
	// A leading @ stands for the NUL of an abstract address there as it does in package net.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		return fmt.Errorf("cannot notify the service manager: %w", err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("cannot notify the service manager: %w", err)
	}
	return nil
}
