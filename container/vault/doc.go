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
// AddSlot, ReplaceSlot, RemoveSlot and ChangePassphrase change key slots, of a mounted vault too; Recover starts from the
// recovery key when passphrase or config are lost.
//
// It promises that nothing of the config is used before it has proved authentic, except what finding a key slot takes and
// within stated bounds; that a link sequence is never drawn twice, whatever crashes; that a session which did not end cleanly
// is remembered until somebody has put right what it left, and its journal replayed before anything else is written; and that one writer at a time has the vault, as far as the host's
// locks reach. It does not notice when all of .coffer is put back to an earlier state that was once valid.
//
// Package keys has the key schedule, package dirs uses the link sequences; read FORMAT.md section 9 next.
package vault
