// Package routes measures the table of routes alone, without a cluster: "imctl bench table". It fills a real raftfsm.FSM
// with log entries as Raft hands them over, and measures what an operator of a large cluster would ask: memory for each
// route, how long a look-up takes, what a snapshot does to those who log in meanwhile, how long a node takes to read one
// when it starts, and what the garbage collector has to do with all that.
//
// Everything is of this process and read from runtime/metrics; the snapshot is written to a real file with a flush every
// few MiB, as a node's is. The table that was restored has to have the same hash as the one that was written, and every
// look-up has to find its route; anything else is a problem in the Result.
//
// It is the only package below cli that knows raftfsm: a measurement through a node would measure the node.
package routes
