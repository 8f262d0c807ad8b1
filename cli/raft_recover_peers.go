package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"imroute/node"
)

// maxPeersFile bounds what is read of a peers file.
const maxPeersFile = 1 << 20

const peersHint = "one node name or id a line, \"non-voter\" behind it if it is to have no vote; or the output of \"raft peers --output json\" without the peers that are lost"

// readPeers reads the file that says who is left.
func readPeers(path string) ([]node.RecoverPeer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fail("peers", "--peers names a file: "+peersHint, "cannot read the peers: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPeersFile+1))
	if err != nil {
		return nil, fail("peers", "", "cannot read the peers: %w", err)
	}
	if len(b) > maxPeersFile {
		return nil, fail("peers", peersHint, "%s is too long for a list of peers", path)
	}
	peers, err := parsePeers(b)
	if err == nil && len(peers) == 0 {
		err = errors.New("it names nobody")
	}
	if err != nil {
		return nil, fail("peers", peersHint, "%s is not a list of peers: %w", path, err)
	}
	return peers, nil
}

// parsePeers understands
//
//   - one node a line, by name or id, with "voter" (what it is if nothing is said) or "non-voter" behind it; empty lines and
//     what follows a # do not count,
//   - a JSON list of names, ids or objects with "name" or "id" and perhaps "voter", or an object that has such a list under
//     "peers", as "raft peers --output json" prints it. A comma that was left behind when lines were deleted is forgiven.
func parsePeers(b []byte) ([]node.RecoverPeer, error) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // some editors put it there
	if s := bytes.TrimSpace(b); len(s) > 0 && (s[0] == '{' || s[0] == '[') {
		return parsePeersJSON(s)
	}
	var peers []node.RecoverPeer
	for i, line := range strings.Split(string(b), "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		p := node.RecoverPeer{Node: words[0], Voter: true}
		switch {
		case len(words) == 1, len(words) == 2 && words[1] == "voter":
		case len(words) == 2 && words[1] == "non-voter":
			p.Voter = false
		default:
			return nil, fmt.Errorf("line %d: %q: want a name or id, then perhaps voter or non-voter", i+1, strings.TrimSpace(line))
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// leftComma is a comma with nothing but the end of the list behind it. No name or address contains one.
var leftComma = regexp.MustCompile(`,(\s*[\]}])`)

func parsePeersJSON(b []byte) ([]node.RecoverPeer, error) {
	b = leftComma.ReplaceAll(b, []byte("$1"))
	var list []json.RawMessage
	if b[0] == '{' {
		var all struct {
			Peers []json.RawMessage `json:"peers"`
		}
		if err := json.Unmarshal(b, &all); err != nil {
			return nil, err
		}
		list = all.Peers
	} else if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	var peers []node.RecoverPeer
	for i, raw := range list {
		p := node.RecoverPeer{Voter: true}
		if json.Unmarshal(raw, &p.Node) != nil {
			var o struct {
				Name  string `json:"name"`
				ID    string `json:"id"`
				Voter *bool  `json:"voter"`
			}
			if err := json.Unmarshal(raw, &o); err != nil {
				return nil, fmt.Errorf("peer %d: %w", i+1, err)
			}
			if p.Node = o.ID; p.Node == "" { // the id cannot be another node's
				p.Node = o.Name
			}
			if o.Voter != nil {
				p.Voter = *o.Voter
			}
		}
		if p.Node == "" {
			return nil, fmt.Errorf("peer %d has neither a name nor an id", i+1)
		}
		peers = append(peers, p)
	}
	return peers, nil
}
