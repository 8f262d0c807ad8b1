// Package bench is imctl's load generator: it drives a cluster through the public SDK (node/client), as an application
// would, and measures what an application would notice. Nothing is short-cut for it.
//
// What it promises
//
//   - One-way messages run flat out with a bounded number in flight for each recipient, or in an open loop: message n is
//     due at n/rate whether or not earlier ones got through, and latency counts from that moment, so that a cluster that
//     stalls is charged for everything that should have been sent meanwhile. Acknowledged ones run in a closed loop.
//   - Every message carries its sender and a number, and every recipient keeps books: what never arrived, came twice, or
//     came out of order is counted, warm-up and drain included. Only rates, latencies and CPU are of the measured time.
//   - The fields and units of [Result] are those of measurements of other systems taken beside it, so that ratios can be
//     formed. An absolute figure means nothing from one machine to the next.
//   - Every run is bounded in time (its context, warm-up, duration, drain) and memory; when its context ends early, what
//     was measured until then is returned.
//
// What it leaves to others: starting clusters, profiles, and showing results (package cli). CPU and memory of processes
// are read on Linux only, and are 0 elsewhere. The SDK drops a message that the cluster delivers twice within its window;
// what is counted as duplicated is what the application would have seen twice.
package bench
