// Command coffer makes encrypted directories and mounts them.
//
//	coffer init VAULT                    make a vault
//	coffer mount VAULT MOUNTPOINT        mount it (--create makes what is missing first)
//	coffer umount MOUNTPOINT             unmount it and wait until the vault is released
//	coffer passwd VAULT                  change the passphrase
//	coffer key add|list|remove VAULT     what else opens it: passphrases, key files, age recipients
//	coffer recover VAULT                 open a vault with its recovery key
//	coffer config backup|restore VAULT   keep the config elsewhere
//	coffer verify VAULT                  check every byte with the key, and with --repair save what is left
//	coffer scrub VAULT                   look for rot, without a key
//	coffer info VAULT                    say what a vault is, without a secret
//	coffer status MOUNTPOINT             say how a mount is doing (status.go)
//	coffer freeze, thaw MOUNTPOINT       hold the vault still for a copy of it (control.go)
//	coffer ls, cat, stat VAULT PATH      look into a vault without a mount (source.go)
//	coffer import VAULT SRC... [DEST]    copy into a vault, mounted or not (bulk)
//	coffer export VAULT PATH... DEST     copy out of it
//	coffer seal, coffer open             standard input as a sealed stream, and back
//	coffer speed                         how fast this machine encrypts
//	coffer debug journal VAULT           what the next mount replays
//	coffer man DIR, completion, version  for who packages it
//
// Called as mount.fuse.coffer it is mount(8)'s helper (mount8.go).
//
// # The way of a mount
//
//	coffer mount (cmd_mount.go)         the daemon (the same binary, a new session; serve.go)
//	  check vault, mount point, FUSE
//	  ask for the passphrase
//	  KDF in a short-lived child
//	  start the daemon  ── key, pipe ──>  open the vault: lock, state, session; replay its journal
//	  (daemon.go)                         put the layers together (fs/stack.go), mount
//	  exit 0            <── ready ──────  serve until unmounted or SIGTERM
//	                                      flush, mark the vault clean, release
//
// With --foreground the same process does both halves. The master key crosses to the daemon through a pipe and is never
// in an argument, the environment or a file.
//
// Every error ends as one line "coffer: …", mostly a second line "hint: …", and an exit code of the table in exit.go; classify.go
// gives those of the layers below theirs. This package holds no logic of the filesystem.
//
// # The files
//
// A command is in the file of its name, as cmd_verify.go. Beside them:
//
//	main.go root.go exit.go classify.go man.go            the program around the commands
//	checks.go inuse.go mountinfo.go options.go size.go    what is looked at before a secret is asked for
//	secret.go terminal.go unlock.go identity.go pins.go recoverykey.go
//	                                                      secrets, and what they open
//	daemon.go serve.go limits.go heap.go idle.go notify.go logging.go record.go
//	                                                      the daemon
//	sockets.go control.go status.go verifying.go          what it is asked while it serves
//	unmount.go holders.go                                 taking a mount away
//	source.go mounted.go bulk/                            a vault without a mount, or through it
//	findings.go progress.go                               what checks and copies print
//
// Read next: package fs, which follows a read and a write through all layers.
package main
