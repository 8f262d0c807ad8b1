// Package admin is the operators' side of a node: an HTTP/JSON API, its types, and the Go client that imctl uses.
//
// The server knows no node: it declares the Backend it needs and turns requests into calls of it. What it adds is what
// every such API must have and no backend should think about: authentication, limits on time and size, requests refused
// with the name of the field at fault, errors with a reason and a hint, an audit line for whatever changes something, and
// an orderly end.
//
// # Forms
//
// Every answer is a JSON object or array, except the watch (one JSON object a line), /metrics and /debug/pprof. 64-bit
// numbers (indexes, terms, incarnations, epochs, bytes) are strings; counts of things and durations have 32 bits and are
// numbers. Unknown fields in a request are refused, so that a misspelt one is not silently ignored; unknown fields in an
// answer must be skipped by clients, so that nodes of different versions can be asked by one tool.
//
// An error is
//
//	{"error":{"code":3,"reason":"unavailable","message":"what went wrong","hint":"what to do next"}}
//
// with the HTTP status that belongs to the reason (see Status). A look-up that finds no route is a 404 whose body is the
// look-up's usual answer with "found":false.
//
// # Paths
//
// A client id is one path segment, percent-encoded: user/device is user%2Fdevice. Under /v1/routes/ the plain words stats
// and watch are endpoints; a client of that name is reached by encoding any letter of it (%73tats), which Client always
// does.
//
// # Who may ask
//
// /healthz and /readyz answer everybody. Everything else wants "Authorization: Bearer TOKEN", except in development mode,
// which the server allows on loopback addresses only. There, requests that a web page could have caused (a Host that is
// not loopback, a foreign Origin, Sec-Fetch-Site cross-site) are refused. Beyond loopback the server does not listen
// without TLS.
package admin
