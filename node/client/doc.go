// Package client is imroute's Go SDK: one Client is one client id, connected to whichever node of a cluster takes it, and
// reconnecting until it is closed or told to stop.
//
//	c, err := client.Dial(ctx, client.Config{Addrs: []string{"10.0.0.1:7300", "10.0.0.2:7300"}, Client: "alice", Token: token})
//	res, err := c.Send(ctx, "bob", []byte("hello"))
//	msg, err := c.Receive(ctx)
//	err = c.Close(ctx)
//
// What it promises
//
//   - Every Send with an acknowledgement ends: with the cluster's answer, or with a typed error once its time-out is over.
//     A message keeps its id for ever. If the connection breaks before the answer came, it is sent again under the same id
//     and in the same order, so that a cluster that took it before answers as it did then.
//   - Messages arrive in the order in which the cluster delivered them. One that this Client saw in an earlier session is
//     dropped (with an acknowledgement: within the last [dedupeIDs] ids per sender), and so is one whose epoch is below the highest epoch seen.
//   - Memory is bounded: see Config.QueueBytes, MaxInFlight and ReceiveBuffer. If the application does not read, the Client
//     stops reading the connection, and the cluster closes it as a slow reader; nothing grows.
//   - After Close returned nil no goroutine of the Client is left.
//
// What it leaves to others: ack=none messages that were written to a connection which then broke are not repeated; whether
// they arrived is not known. Who may log in, who owns a client id, and duplicates within one session are the cluster's job.
//
// A Client has two goroutines while it is idle, one that decides (timers, addresses, reconnecting) and one that reads its
// connection, and no buffers. A writer exists only while there is something to write: it takes what has gathered, up to
// 64 KiB at a time, so that many sends share a packet without any timer.
package client
