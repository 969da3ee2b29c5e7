package main

// Verifier keys: the log's, which x/mod knows, and cosigners', which it does not.
//
// This file owns who counts as what: the log under its own origin, witnesses under names that end
// in `/witness`, receipts of what is durable under names that end in `/held`.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Signature types of C2SP signed-note.
const (
	typeLog      = 0x01
	typeCosigner = 0x04
)

// emptyRoot is the root of a tree of no entries: the hash of nothing.
var emptyRoot = tlog.Hash(sha256.Sum256(nil))

// cosigner verifies the signatures of one C2SP cosignature/v1 key.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

// Verify: a signature is the time, 8 bytes big-endian, then Ed25519 over a header and the note.
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(sig)
	if time >= 1<<63 {
		return false
	}
	signed := append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", time)), msg...)
	return ed25519.Verify(c.key, signed, sig[8:])
}

type keyID struct {
	name string
	hash uint32
}

// keys are the verifier keys that count.
type keys struct {
	verifiers note.Verifiers
	logs      map[keyID]bool
	cosigners map[keyID]*cosigner
}

// readKeys reads a file of verifier keys, one a line.
func readKeys(path string) (*keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k := &keys{logs: map[keyID]bool{}, cosigners: map[keyID]*cosigner{}}
	var verifiers []note.Verifier
	for number, line := range strings.Split(string(text), "\n") {
		if line == "" {
			continue
		}
		verifier, err := readKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, number+1, err)
		}
		id := keyID{verifier.Name(), verifier.KeyHash()}
		if k.logs[id] || k.cosigners[id] != nil {
			continue
		}
		if c, ok := verifier.(*cosigner); ok {
			k.cosigners[id] = c
		} else {
			k.logs[id] = true
		}
		verifiers = append(verifiers, verifier)
	}
	k.verifiers = note.VerifierList(verifiers...)
	return k, nil
}

func readKey(vkey string) (note.Verifier, error) {
	// The key's base64 may itself contain a plus sign.
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("no verifier key: <name>+<id>+<base64>")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return nil, errors.New("no Ed25519 key")
	}
	switch key[0] {
	case typeLog:
		return note.NewVerifier(vkey)
	case typeCosigner:
		id, err := strconv.ParseUint(parts[1], 16, 32)
		hash := sha256.Sum256(bytes.Join([][]byte{[]byte(parts[0]), key}, []byte("\n")))
		if err != nil || len(parts[1]) != 8 || parts[0] == "" || uint32(id) != binary.BigEndian.Uint32(hash[:]) {
			return nil, errors.New("the key does not fit its id")
		}
		return &cosigner{name: parts[0], hash: uint32(id), key: key[1:]}, nil
	default:
		return nil, fmt.Errorf("keys of type 0x%02x are not known here", key[0])
	}
}

// signers is who signed a note.
type signers struct{ all, witnesses, held, unknown int }

// count says who signed a note that verified; its log must have.
func (k *keys) count(origin string, n *note.Note) (signers, error) {
	by := signers{all: len(n.Sigs), unknown: len(n.UnverifiedSigs)}
	// x/mod decodes base64 leniently, so that one signature would have several spellings.
	for _, sig := range append(append([]note.Signature{}, n.Sigs...), n.UnverifiedSigs...) {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return by, fmt.Errorf("the signature of `%s` is not spelled as it must be", sig.Name)
		}
	}
	signed := false
	counted := map[string]bool{}
	for _, sig := range n.Sigs {
		id := keyID{sig.Name, sig.Hash}
		if k.logs[id] {
			signed = signed || sig.Name == origin
			continue
		}
		// A cosignature does not name its cosigner: one key under two names counts once.
		key := string(k.cosigners[id].key)
		if counted[key] {
			continue
		}
		counted[key] = true
		switch node, role := splitRole(sig.Name); {
		case role == "witness" && !strings.HasPrefix(origin, node+"/"):
			by.witnesses++
		case role == "held":
			by.held++
		}
	}
	if !signed {
		return by, errors.New("its log did not sign it under a key that is in the file of verifier keys")
	}
	return by, nil
}

// splitRole: `<realm>/<division>/<role>`. A node is no witness of its own ledgers.
func splitRole(name string) (node, role string) {
	at := strings.LastIndexByte(name, '/')
	if at < 0 {
		return name, ""
	}
	return name[:at], name[at+1:]
}
