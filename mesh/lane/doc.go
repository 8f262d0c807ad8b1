// Package lane carries messages between two nodes in order and exactly once for as long as both processes live, over one
// stream at a time that may break at any byte.
//
// A Session is one lane's end. Both ends are alike: each sends Forwards (messages) and Statuses (what became of the other
// side's messages). Messages and statuses are encoded once, into chunks taken from a pool; one writer goroutine per stream
// writes straight from the chunks, 16 to 64 KiB at a time when there is that much and at once when there is not. A chunk
// goes back to the pool when the peer has acknowledged what is in it. When the stream breaks, mesh attaches the next one
// and everything unacknowledged is sent again, in order; the receiver drops what it has seen.
//
// # Promises
//
//   - The peer's Handler sees each message at most once and in the order of Send, and each status exactly once and in the
//     order of SendStatus, unless the peer becomes another process or the session is closed: then Lost says so for each
//     message that is not known to have been taken.
//   - Acked(upto) comes after every refusal (NACK) among the messages up to upto, also when the refusals had to be resent.
//   - Nothing here waits for a session, a fence or a client. The receiving side never waits for the sending side, so two
//     lanes that are full in both directions cannot block each other.
//   - Memory is bounded by Config.QueueBytes, twice Config.StatusBytes and one read buffer.
//   - Malformed input ends the stream with an error; lengths are capped before anything is allocated.
//
// # Left to others
//
//   - Whether the stream is alive (the QUIC connection's idle time-out), who the peer is (its certificate), when to dial.
//   - Refs: whoever makes them starts from a random number, so that an answer to a former process cannot pass for an
//     answer to its successor.
//   - What a refused or lost message means: the router looks again and sends it elsewhere or gives up.
//
// # On the stream
//
//	hello   process, session, the peer session it knows and what it received from it; the opener's goes first
//	resume  sequence number of the next message and of the next status, once the peer's hello was read
//	then, in any mixture: message (in full, defining a context, or short by one), status, ack
//
// A record is one kind byte, a 24-bit length (both in one big-endian uint32) and a body. Messages and statuses are counted
// separately, from the numbers in resume on. An ack names the highest message and the highest status that were taken; it
// is written only behind every refusal of a message that it covers.
package lane
