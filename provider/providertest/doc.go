// Package providertest holds the suite that every implementation of provider.Provider passes. It imports the standard
// library alone.
//
// A provider's own test fills a Harness and calls Run:
//
//	func TestConformance(t *testing.T) {
//		providertest.Run(t, providertest.Harness{
//			New:  func(t *testing.T) provider.Provider { return dockerprovider.New(dockerprovider.Config{}) },
//			Spec: provider.Spec{Image: "alpine:3"},
//			Cmd:  providertest.Shell, // the image has a POSIX shell
//		})
//	}
//
// A provider whose workspaces have no shell gives a Cmd of its own and interprets the actions: there are about twenty.
//
// Each case is a subtest with the rule that it checks; a failure prints the rule. Cases of abilities that the provider
// lacks are not run, which is logged once. A case deletes what it made and checks that nothing of its owner is left.
// One case alone: go test -run 'TestConformance/process/names'.
package providertest
