// Package metrics is a node's Prometheus metrics: their names, what they mean, and how they are read.
//
// Most values are kept by the parts of the node anyway. They are read through Sources when somebody asks for the metrics,
// so that there is no second bookkeeping and nothing on the hot path. Only distributions of times, which nobody keeps
// otherwise, are observed here. Every node has a registry of its own; nothing is registered globally.
//
// It stands beside package admin rather than in it so that programs which only use the API's client do not link
// Prometheus.
package metrics
