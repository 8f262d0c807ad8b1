// Package web is what a node serves to browsers on its WebSocket port: the JavaScript client with its types, and in
// development mode a chat page that uses it.
//
// It promises that the client's table of codes is the one of mesh/wire (a test compares them), that the page needs nothing
// from other places and runs under a strict Content-Security-Policy, and that nothing here but the client module is served
// outside development mode. Who may open a WebSocket is the gateway's to decide.
package web
