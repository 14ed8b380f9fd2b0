package providertest

import (
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Harness is what the suite must know of a provider. New, Spec and Cmd are needed, unless Spec's zero value boots.
type Harness struct {
	// New returns an instance, without I/O. It is called once for each case, and once to learn what the provider can do;
	// the instances may share a scope. What an instance holds is released with t.Cleanup.
	New func(t *testing.T) provider.Provider

	// Spec is what the workspaces of the suite are made of.
	Spec provider.Spec

	// Cmd makes the command of a process that does these actions one after the other and exits with 0 unless they say
	// otherwise. Shell does it for workspaces with a POSIX shell.
	Cmd func(actions ...Action) provider.Cmd

	// Reopen returns the instance that a new host process would have after the death of the one that used p: another
	// instance of the same scope. The suite does not use p after it, so Reopen may close it in a way that leaves the
	// workspaces. nil: taking over is not checked.
	Reopen func(t *testing.T, p provider.Provider) provider.Provider

	// Fail makes a workspace fail, and Vanish makes it disappear, as its node's fault would. nil: not checked.
	Fail, Vanish func(t *testing.T, p provider.Provider, id string)

	// Around runs a case. nil: as it is. synctest.Test, for a provider that lives in memory, plays it in virtual time.
	Around func(t *testing.T, f func(t *testing.T))

	Parallel bool          // the cases run in parallel; not with synctest.Test
	Patience time.Duration // how long one step may take, such as a boot; 0: 30 s
	Many     int           // workspaces in the case that makes many at once; 0: 8
	TTL      time.Duration // shortest time-out that KeepAlive can set; 0: 1 s

	// Limits of Upload, unpacked: an archive that exceeds one is refused. 0: no limit.
	MaxUploadBytes int64
	MaxUploadFiles int
}

func (h Harness) patience() time.Duration {
	if h.Patience > 0 {
		return h.Patience
	}
	return 30 * time.Second
}

func (h Harness) many() int {
	if h.Many > 0 {
		return h.Many
	}
	return 8
}

func (h Harness) ttl() time.Duration {
	if h.TTL > 0 {
		return h.TTL
	}
	return time.Second
}
