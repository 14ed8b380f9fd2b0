// Package policy holds the decisions of the dispatcher as functions of what is known: what follows the end of a run,
// how long to wait, whether a silent agent is stuck, what a place in the line means in words. Nothing here reads a
// clock, takes a lock or does I/O, so the dispatcher, its tests and the benchmarks decide alike.
package policy
