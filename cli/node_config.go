package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxConfigFile is the largest configuration file in bytes.
const maxConfigFile = 1 << 20

// readNodeConfig sets the flags that a file names and that were not given on the command line.
func readNodeConfig(path string, flags *pflag.FlagSet) error {
	f, err := os.Open(path)
	if err != nil {
		return fail("config", "check --config", "cannot read the configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return fail("config", "check --config", "cannot read the configuration: %w", err)
	}
	if err := applyNodeConfig(b, flags); err != nil {
		return fail("config", "keys are the names of the flags of \"node start\", see its --help", "%s: %w", path, err)
	}
	return nil
}

// applyNodeConfig is strict: one document, a mapping of known keys, each at most once, to plain values or lists of them.
func applyNodeConfig(b []byte, flags *pflag.FlagSet) error {
	if len(b) > maxConfigFile {
		return fmt.Errorf("larger than %d bytes", maxConfigFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // empty
	case err != nil:
		return err
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one document in it")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return errors.New("want one mapping of keys to values")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil // only comments
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want a mapping of keys to values", root.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d: a key must be a plain word", key.Line)
		}
		if seen[key.Value] {
			return fmt.Errorf("line %d: %s is there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		if err := applyKey(key, value, flags); err != nil {
			return err
		}
	}
	return nil
}

func applyKey(key, value *yaml.Node, flags *pflag.FlagSet) error {
	flag := flags.Lookup(key.Value)
	if flag == nil || notInFile[key.Value] {
		best, most := "", 3
		flags.VisitAll(func(f *pflag.Flag) {
			if d := distance(key.Value, f.Name); d < most && !notInFile[f.Name] && !f.Hidden {
				best, most = f.Name, d
			}
		})
		if best != "" {
			return fmt.Errorf("line %d: unknown key %q; did you mean %q?", key.Line, key.Value, best)
		}
		return fmt.Errorf("line %d: unknown key %q", key.Line, key.Value)
	}
	var values []string
	list, isList := flag.Value.(pflag.SliceValue)
	switch {
	case value.Kind == yaml.ScalarNode && value.Tag != "!!null":
		values = []string{value.Value}
	case value.Kind == yaml.SequenceNode && isList:
		for _, v := range value.Content {
			if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
				return fmt.Errorf("line %d: %s: want a list of plain values", v.Line, key.Value)
			}
			values = append(values, v.Value)
		}
	default:
		return fmt.Errorf("line %d: %s: want a plain value", value.Line, key.Value)
	}
	if flag.Changed {
		return nil // the command line wins
	}
	if isList {
		if err := list.Replace(splitAddrs(values...)); err != nil {
			return fmt.Errorf("line %d: %s: %w", value.Line, key.Value, err)
		}
		return nil
	}
	// Not flags.Set: the flag must go on counting as not given.
	if err := flag.Value.Set(values[0]); err != nil {
		return fmt.Errorf("line %d: %s: %q: %w", value.Line, key.Value, values[0], err)
	}
	return nil
}
