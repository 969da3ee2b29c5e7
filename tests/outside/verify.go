// Command verify checks ledgers that a node serves, or that were exported into a folder, with
// Go's own golang.org/x/mod/sumdb/note and tlog: nothing of the node's code is in it.
//
// It owns the order of the checks. It refuses a ledger at the first thing that does not hold, and
// refuses to remember a checkpoint of such a ledger.
//
// Build with Debian's golang-go and golang-golang-x-mod-dev:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o verify .
package main

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is C2SP's: a tile has up to 256 hashes.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// proofsMax is how many entries of a ledger get an inclusion proof, spread evenly.
const proofsMax = 32

// options are what the command line says.
type options struct {
	keys    *keys
	quorum  int
	strict  bool
	entries bool
	token   string
	seen    string
}

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func main() {
	var bases list
	var o options
	vkeys := flag.String("vkeys", "", "`file` of verifier keys, one a line, obtained from elsewhere than the ledgers")
	flag.Var(&bases, "base", "`URL or folder` under which each ledger lies by its origin; repeat it for mirrors")
	flag.IntVar(&o.quorum, "quorum", 0, "cosignatures of witnesses that every checkpoint must have")
	flag.BoolVar(&o.strict, "strict", false, "refuse signatures by keys that are not in the file")
	flag.BoolVar(&o.entries, "entries", false, "read the entry bundles too; over HTTP that needs an auditor's token")
	tokenFile := flag.String("token-file", "", "`file` with the token of an auditor's session")
	flag.StringVar(&o.seen, "seen", "", "`folder` of the checkpoints seen before: each must be extended, and is then replaced")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: verify -vkeys FILE -base URL|FOLDER [options] ORIGIN...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *vkeys == "" || len(bases) == 0 || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	var err error
	if o.keys, err = readKeys(*vkeys); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if *tokenFile != "" {
		token, err := os.ReadFile(*tokenFile)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		o.token = strings.TrimSpace(string(token))
	}
	failed := false
	for _, base := range bases {
		for _, origin := range flag.Args() {
			report, err := verify(&o, base, origin)
			if err != nil {
				failed = true
				fmt.Printf("FAILED %s %s: %v\n", base, origin, err)
				continue
			}
			fmt.Printf("ok %s %s %s\n", base, origin, report)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// checkpoint is what a verified note says.
type checkpoint struct {
	tree tlog.Tree
	note []byte
	by   signers
}

// verify checks one ledger at one place, all of it.
func verify(o *options, base, origin string) (string, error) {
	if !isOrigin(origin) {
		return "", errors.New("this is no origin of a ledger; give <realm>/<division>/<name>")
	}
	from := newSource(base, origin, o.token)
	bytes, err := from.get("checkpoint", noteBytesMax)
	if err != nil {
		return "", err
	}
	head, err := open(o, origin, bytes)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	if head.by.witnesses < o.quorum {
		return "", fmt.Errorf("checkpoint: %d witnesses cosigned it, the quorum is %d", head.by.witnesses, o.quorum)
	}
	reader := tlog.TileHashReader(head.tree, &tiles{from: from, kept: map[tlog.Tile][]byte{}})
	extends, err := checkSeen(o, origin, head, reader)
	if err != nil {
		return "", err
	}
	counted, err := checkTree(o, from, head.tree, reader)
	if err != nil {
		return "", err
	}
	if err := remember(o, origin, head); err != nil {
		return "", err
	}
	return fmt.Sprintf("size=%d root=%s signatures=%d witnesses=%d held=%d unknown=%d tiles=%d entries=%d proofs=%d extends=%s",
		head.tree.N, head.tree.Hash, head.by.all, head.by.witnesses, head.by.held, head.by.unknown,
		counted.tiles, counted.entries, counted.proofs, extends), nil
}

// open verifies a note's signatures and reads the checkpoint in it.
func open(o *options, origin string, bytes []byte) (*checkpoint, error) {
	opened, err := note.Open(bytes, o.keys.verifiers)
	if err != nil {
		return nil, err
	}
	by, err := o.keys.count(origin, opened)
	if err != nil {
		return nil, err
	}
	if o.strict && by.unknown > 0 {
		return nil, fmt.Errorf("%d signatures are by keys that are not in the file of verifier keys", by.unknown)
	}
	tree, err := parse(origin, opened.Text)
	if err != nil {
		return nil, err
	}
	return &checkpoint{tree: tree, note: bytes, by: by}, nil
}

// parse reads the text of a C2SP checkpoint without extension lines.
func parse(origin, text string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("the text is not of three lines")
	}
	if lines[0] != origin {
		return tlog.Tree{}, fmt.Errorf("it is of another ledger, %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("the size is no number: %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("the root is no hash: %q", lines[2])
	}
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	if size == 0 && tree.Hash != emptyRoot {
		return tlog.Tree{}, errors.New("nothing was entered, and the root is not that of nothing")
	}
	return tree, nil
}

// counted is how much of a ledger was checked.
type counted struct{ tiles, entries, proofs int64 }

// checkTree checks every tile of every level against the root, and entries and proofs below it.
func checkTree(o *options, from source, tree tlog.Tree, reader tlog.HashReader) (counted, error) {
	var done counted
	every := tree.N/proofsMax + 1
	for level := 0; tree.N>>(tileHeight*level) > 0; level++ {
		hashes := tree.N >> (tileHeight * level)
		for at := int64(0); at*tileWidth < hashes; at++ {
			tile := tlog.Tile{H: tileHeight, L: level, N: at, W: tileWidth}
			if left := hashes - at*tileWidth; left < tileWidth {
				tile.W = int(left)
			}
			// TileHashReader gives only hashes that it has shown to lie under the root.
			data, err := tlog.ReadTileData(tile, reader)
			if err != nil {
				return done, fmt.Errorf("%s: %w", tilePath(tile), err)
			}
			done.tiles++
			if level > 0 {
				continue
			}
			leaves := make([]tlog.Hash, tile.W)
			for i := range leaves {
				copy(leaves[i][:], data[i*tlog.HashSize:])
			}
			if o.entries {
				if leaves, err = bundle(from, tile, leaves); err != nil {
					return done, err
				}
				done.entries += int64(tile.W)
			}
			for i, leaf := range leaves {
				index := at*tileWidth + int64(i)
				if index%every != 0 && index != tree.N-1 {
					continue
				}
				proof, err := tlog.ProveRecord(tree.N, index, reader)
				if err == nil {
					err = tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf)
				}
				if err != nil {
					return done, fmt.Errorf("inclusion of entry %d: %w", index, err)
				}
				done.proofs++
			}
		}
	}
	return done, nil
}

// bundle hashes the entries of a bundle, which must be the leaves of the tile beside it.
func bundle(from source, tile tlog.Tile, leaves []tlog.Hash) ([]tlog.Hash, error) {
	entries, err := from.entries(tile)
	if err != nil {
		return nil, err
	}
	hashes := make([]tlog.Hash, len(leaves))
	for i, entry := range entries {
		hashes[i] = tlog.RecordHash(entry)
		if hashes[i] != leaves[i] {
			return nil, fmt.Errorf("entry %d is not the one in the tree", tile.N*tileWidth+int64(i))
		}
	}
	return hashes, nil
}

// seenPath is where the checkpoint of a ledger that was seen before lies.
func seenPath(o *options, origin string) string {
	return filepath.Join(o.seen, filepath.FromSlash(origin), "checkpoint")
}

// checkSeen proves that a checkpoint extends the one seen before; gives the size of that.
func checkSeen(o *options, origin string, head *checkpoint, reader tlog.HashReader) (string, error) {
	if o.seen == "" {
		return "none", nil
	}
	path := seenPath(o, origin)
	bytes, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "none", nil
	} else if err != nil {
		return "", err
	}
	old, err := open(o, origin, bytes)
	if err != nil {
		return "", fmt.Errorf("the checkpoint seen before, `%s`: %w", path, err)
	}
	if err := checkExtends(old.tree, head.tree, reader); err != nil {
		return "", fmt.Errorf("it does not extend the checkpoint seen before, `%s`; keep both, they are evidence: %w", path, err)
	}
	return strconv.FormatInt(old.tree.N, 10), nil
}

// remember keeps a checkpoint of which everything held.
func remember(o *options, origin string, head *checkpoint) error {
	if o.seen == "" {
		return nil
	}
	path := seenPath(o, origin)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(path+".part", head.note, 0o666); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// checkExtends proves that one tree is the beginning of another.
func checkExtends(old, head tlog.Tree, reader tlog.HashReader) error {
	if old.N > head.N {
		return fmt.Errorf("size %d was seen before, this is %d", old.N, head.N)
	}
	if old.N == 0 {
		return nil // its root was checked as it was read
	}
	proof, err := tlog.ProveTree(head.N, old.N, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, head.N, head.Hash, old.N, old.Hash)
}
