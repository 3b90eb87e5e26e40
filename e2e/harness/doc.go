// Package harness runs the whole system for the end-to-end tests, the demonstration and the benchmarks: the real programs
// as processes of their own, against the Harbor emulator or a real Harbor.
//
// It guarantees that everything a system needs is made in one folder (keys, secrets, configuration, logs) and that Harbor
// is set up through nothing but Harbor's own API, under random names, with the least rights that work. Processes are ended
// by their own handle. Waiting is polling of a condition with a deadline, never a guess at how long something takes.
//
// It assumes Linux or another Unix, the go command, and a loopback interface with free ports between 20000 and 31999. It
// judges nothing: that is the checker's work.
package harness
