// Package cli is imctl: the one binary that is both imroute's server ("imctl node start", "imctl dev") and the tool to
// operate it.
//
// What it promises: every command works from the flags, the environment and the context file alone; nothing is read from
// or written to anywhere but the IOStreams it was given, the context file and the data folders named to it; with
// --output json every answer and every error is JSON; exit codes are those of "imctl help exit-codes"; an error says
// what to do next; nothing waits longer than --timeout unless it is meant to run until stopped.
//
// What it leaves to others: the server is package node, the admin API and its Go client are package node/admin, the
// client protocol is package node/client. This package decides nothing about routing.
//
// One file holds one command: its options, its constructor (newXxxCmd) and its run. What they share is in app.go (what a
// run of imctl knows), target.go (which nodes it talks to), errors.go (exit codes and hints), output.go (tables and
// JSON) and contextfile.go (the remembered cluster).
package cli
