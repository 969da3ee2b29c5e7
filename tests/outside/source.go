package main

// Where a ledger's bytes come from: a node over HTTP, any web server, or a folder.
//
// This file owns the paths of C2SP tlog-tiles, which x/mod does not know: it spells tile/8/<L>/<N>.
// It refuses redirects and answers that are larger than what was asked for can be.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	noteBytesMax   = 1 << 16
	bundleBytesMax = tileWidth * (2 + 1<<16)
)

var (
	errMissing = errors.New("not there")
	originWord = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)
)

// isOrigin: an origin becomes a path, so that nothing in it may lead elsewhere.
func isOrigin(origin string) bool {
	words := strings.Split(origin, "/")
	for _, word := range words {
		if !originWord.MatchString(word) {
			return false
		}
	}
	return len(words) >= 2
}

// source is one ledger at one place.
type source struct {
	url, folder, token string
}

var client = &http.Client{
	Timeout: time.Minute,
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("a ledger is not served by redirects")
	},
}

func newSource(base, origin, token string) source {
	if strings.HasPrefix(base, "http://") || strings.HasPrefix(base, "https://") {
		return source{url: strings.TrimSuffix(base, "/") + "/" + origin + "/", token: token}
	}
	return source{folder: filepath.Join(base, filepath.FromSlash(origin))}
}

// get reads one file of the ledger.
func (s source) get(path string, max int64) ([]byte, error) {
	body, err := s.body(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer body.Close()
	bytes, err := io.ReadAll(io.LimitReader(body, max+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(bytes)) > max {
		return nil, fmt.Errorf("%s: more than %d bytes", path, max)
	}
	return bytes, nil
}

func (s source) body(path string) (io.ReadCloser, error) {
	if s.url == "" {
		file, err := os.Open(filepath.Join(s.folder, filepath.FromSlash(path)))
		if errors.Is(err, os.ErrNotExist) {
			return nil, errMissing
		}
		return file, err
	}
	request, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		return nil, err
	}
	// Only entries are not open; the token goes nowhere else.
	if s.token != "" && strings.HasPrefix(path, "tile/entries/") {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	response.Body.Close()
	if response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusGone {
		return nil, errMissing
	}
	return nil, errors.New(response.Status)
}

// tilePath is where C2SP tlog-tiles has a tile.
func tilePath(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tile.H), "tile/", 1)
}

// entries reads the bundle beside a tile of leaves.
func (s source) entries(tile tlog.Tile) ([][]byte, error) {
	path := strings.Replace(tilePath(tile), "tile/0/", "tile/entries/", 1)
	bytes, err := s.get(path, bundleBytesMax)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(bytes) > 0 {
		if len(bytes) < 2 {
			return nil, fmt.Errorf("%s: it ends in the middle", path)
		}
		length := 2 + int(binary.BigEndian.Uint16(bytes))
		if len(bytes) < length {
			return nil, fmt.Errorf("%s: it ends in the middle", path)
		}
		entries = append(entries, bytes[2:length])
		bytes = bytes[length:]
	}
	if len(entries) != tile.W {
		return nil, fmt.Errorf("%s: %d entries, not %d", path, len(entries), tile.W)
	}
	return entries, nil
}

// tiles gives x/mod the tiles of a ledger.
type tiles struct {
	from source
	// Only what is asked for again and again: tiles above the leaves, and the ragged edge.
	kept map[tlog.Tile][]byte
}

func (t *tiles) Height() int { return tileHeight }

func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, len(wanted))
	for i, tile := range wanted {
		if bytes, ok := t.kept[tile]; ok {
			read[i] = bytes
			continue
		}
		bytes, err := t.read(tile)
		if err != nil {
			return nil, err
		}
		read[i] = bytes
	}
	return read, nil
}

// read: a narrow tile may be gone where the full one is there.
func (t *tiles) read(tile tlog.Tile) ([]byte, error) {
	want := tile.W * tlog.HashSize
	bytes, err := t.from.get(tilePath(tile), tileWidth*tlog.HashSize)
	if errors.Is(err, errMissing) && tile.W < tileWidth {
		full := tile
		full.W = tileWidth
		if wide, wideErr := t.from.get(tilePath(full), tileWidth*tlog.HashSize); wideErr == nil && len(wide) >= want {
			return wide[:want], nil
		}
	}
	if err == nil && len(bytes) != want {
		err = fmt.Errorf("%s: %d bytes, not %d", tilePath(tile), len(bytes), want)
	}
	return bytes, err
}

// SaveTiles is called with tiles that were shown to lie under the root.
func (t *tiles) SaveTiles(checked []tlog.Tile, data [][]byte) {
	for i, tile := range checked {
		if tile.L > 0 || tile.W < tileWidth {
			t.kept[tile] = data[i]
		}
	}
}
