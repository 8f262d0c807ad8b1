// Package discover lets nodes on one LAN find each other, and agree on who founds their cluster, from a cluster name and a
// shared secret alone.
//
// Every node says a few times a second by UDP multicast what it is: seeking, founding, or a member. Each announcement
// carries an HMAC under a key that is derived slowly (Argon2id) from secret and name, so nobody without the secret can
// make one, and guessing it from what was overheard is expensive. Announcements also name whom their sender hears, by node
// id and a number that is random in each process: one that names this process was made during its life, whatever the
// clocks say, and cannot be an old one that somebody plays again.
//
// Who founds. A node that seeks founds a cluster only if, for the whole of a waiting time,
//
//   - it has heard of no member and of nobody who is founding,
//   - the seekers that it hears have been the same, and each of them, itself included, hears exactly these,
//   - they are as many as the largest number that any of them expects,
//   - it has the lowest node id of them, and
//   - it heard its own announcements, so its way to the network is open.
//
// From that moment on it announces that it founds; the others join it. Two nodes that hear each other at least once in
// each waiting time cannot both do this: see book.decide.
//
// What this cannot do: two parts of a network that do not hear each other look to themselves like two networks, and found
// two clusters unless a larger number is expected than either part has (the least that helps is a majority of all nodes that
// there are). When such parts meet, the members hear each other and say so loudly; nothing is merged.
//
// What this does not do: the joining. An announcement of a member carries the hash of its cluster's CA, and a joiner and
// the members derive the same join token from the secret: with both, package mesh's join works as ever, over TLS, with the
// member proven by the CA and the joiner by the token.
package discover
