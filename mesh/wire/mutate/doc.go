// Package mutate names the mutations of this program: places at which one rule of its protocols can be taken away, to see
// whether the tests notice. In a normal build every switch is the constant false, so the compiler drops what stands behind it
// and the binary holds no trace of it. Built with the tag mutations, the environment variable IMROUTE_MUTATION names the one
// switch that is on in this process; a name that does not exist ends it, so that no test takes a typing error for a rule that
// held.
//
// Package nodetest knows which fault provokes each of them and which checker has to complain (`make mutations`). What each
// rule is for stands at the place where its switch is asked for.
package mutate
