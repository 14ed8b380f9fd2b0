// Package fakeprovider is a provider whose workspaces live in memory and whose processes are Go functions: for the unit
// tests of hosts, in virtual time, and for benchmarks.
//
//	synctest.Test(t, func(t *testing.T) {
//		fake := fakeprovider.New(fakeprovider.Config{
//			Boot: fakeprovider.Fixed(3 * time.Second),
//			Main: func(ctx context.Context, p *fakeprovider.Process) int {
//				fmt.Fprintln(p.Stdout, "done")
//				return 0
//			},
//		})
//		…
//	})
//
// It has every ability of package provider. To try the fall-back of one, hide it with Without; to try those of several,
// name the ones that stay: struct{ provider.Provider; provider.Lister }{fake, fake}.
//
// # Time and goroutines
//
// All waits use package time, so that in a bubble of testing/synctest hours pass at once; make the Provider inside the
// bubble. A workspace has no goroutine, and a process has one as long as its Main runs; nothing else has. The end of a
// workspace ends its processes: their ctx is done. A bubble ends only when they have returned, so a Main must heed its
// ctx. Close ends everything and waits.
package fakeprovider
