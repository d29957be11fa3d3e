// Package vault is what makes a directory a vault: the .coffer directory with the config and its key slots, the state, and the
// lock (FORMAT.md sections 2 and 9 to 11).
//
//	passphrase --Argon2id-----> KEK --unwrap--> master key --HKDF--> keys.Ring
//	key file   --HKDF----------> |                                      |
//	identity   --age, HKDF-----> |                                      |
//	.coffer/config   slots, parameters, MAC  <--------------------------+ authenticates
//	.coffer/state    link sequences, unclean sessions, journal id <-----+
//	.coffer/lock     who has the vault
//
// The order of things for a mount is ReadConfig, Config.Unlock, Open, and at the end Close. Create makes a vault,
// AddSlot, ReplaceSlot and RemoveSlot change key slots, of a mounted vault too; Recover starts from the recovery key when passphrase or
// config are lost.
//
// It promises that nothing of the config is used before it has proved authentic, except what finding a key slot takes and
// within stated bounds; that a link sequence is never drawn twice, whatever crashes; that a session which did not end cleanly
// is remembered until somebody has put right what it left, and its journal replayed before anything else is written; and that one writer
// at a time has the vault, as far as the host's locks reach. It does not notice when all of .coffer is put back to an earlier state that
// was once valid.
//
// # The files, in reading order
//
//	vault.go journal.go                              an open vault, and the journal of its session
//	config.go configfile.go configjson.go params.go  the config: what it says, its two files, its JSON
//	slots.go slot_secret.go slot_age.go kdf.go slot_json.go slot_change.go
//	                                                 key slots: what opens them, how they are written, how they change
//	state.go stateslot.go statelost.go sequence.go ctimes.go
//	                                                 what is remembered from session to session, link sequences above all
//	lock.go                                          one writer at a time
//	create.go recover.go scan.go backup.go           a vault made, and one whose config is lost
//	errors.go                                        the classes of errors
//
// Package keys has the key schedule, package dirs uses the link sequences; read FORMAT.md section 9 next.
package vault
