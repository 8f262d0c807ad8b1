// Package nodetest puts a cluster of real imctl processes under load, breaks things, and judges what happened.
//
//	c := nodetest.Start(t, nodetest.Options{})
//	w := c.Load(t, nodetest.LoadOptions{})
//	c.Nodes[0].Kill(t)
//	w.AwaitServed(t, nodetest.Now(), 10*time.Second)
//	c.Nodes[0].Start(t)
//	w.Finish(t) // settles, stops, and runs every checker over the history and the owners' journals
//
// What it consists of
//
//   - Cluster and Node: processes built from this source (with the race detector if the test has it), on loopback with
//     temporary data and short timings; start, stop, kill -9, SIGSTOP and SIGCONT. They die with the test.
//   - Network: every packet between two nodes goes through a user-space UDP proxy, which can cut, lose, delay and reorder
//     what one chosen node sends to another.
//   - Faults: what happens to a cluster, and what must hold then: a bound for the recovery, words that a node which has to stop
//     must say, and of what operators do in order (Fault.Orderly) that nobody notices (checkServed).
//   - Workload: SDK clients that log in, move, take each other's place, send with every kind of acknowledgement, are looked
//     up and kicked, all of it recorded with real times in a History.
//   - Journals: what each node wrote down itself of its leases and deliveries (imctl's hidden flag --journal).
//   - Checkers: pure functions over Evidence, which is a history and journals. Each has a test that shows it a bad one.
//
// All times are of one clock that every process of the machine shares and that counts suspension (CLOCK_BOOTTIME), so a
// process that was stopped is judged by the same time as the others. Clusters can be started on Linux only; the checkers
// run everywhere.
//
// TestSimulation runs the same workload and checkers on whole nodes in one process, in virtual time and on a network in
// memory: many seeds, a second each (make sim).
//
// What needs root is skipped with the reason where there is none: disks that fill up (a tmpfs for each data folder), disks
// that fail or hang (strace), and a network in the kernel (Spaces: a namespace for each node). It leaves to others everything
// that can be decided without processes.
package nodetest
