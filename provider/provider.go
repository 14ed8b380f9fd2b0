// Package provider is the contract between the dispatcher and whatever makes workspaces.
//
// A Provider makes isolated workspaces, starts processes in them and deletes them. Six methods are all that it must
// have; what else it can do it says with small optional interfaces (see Pauser, Lister, Attacher and the others), each
// of which is asked for with As and has a fall-back where it is missing.
//
// # Rules for implementers
//
//   - A constructor does no I/O and cannot fail for a reason that only I/O can show. The first call is Scope.
//   - All methods may be called from many goroutines at once, also for the same workspace.
//   - The dispatcher retries, paces and times out; a Provider does none of these. It returns the raw cause wrapped in
//     an *Error whose Class is one of this package's Err values. An error of the context is returned as it is, unless
//     the request may already have had an effect: then it is ErrAmbiguous.
//   - State is observed, never assumed: Get, List and Check ask the real thing at each call.
//   - Env values, payloads and secrets arrive with StartProcess and must not reach a label, a log or an error.
//   - A workspace is marked with at most three short labels: owner, agent and token.
//
// Package providertest holds the suite that every implementation passes.
package provider

import (
	"context"
	"time"
)

// Provider makes isolated workspaces.
type Provider interface {
	// Scope names the set of workspaces that this instance can see: one engine, one machine, one account. Two
	// instances with the same Scope see the same workspaces, in whichever process they live. It is the first call
	// (once, from Dispatcher.Start) and may do I/O; its answer must not change during the instance's life.
	Scope(ctx context.Context) (string, error)

	// Capabilities says what the provider does, as data: no I/O, always the same answer. Called often.
	Capabilities() Capabilities

	// Create asks for a workspace and returns when the request is accepted, which may be long before the workspace
	// is Ready; readiness is observed with Get, List or a Watcher. The end of ctx ends the wait for the answer and
	// not the creation. With Capabilities.Create == Idempotent, the same token and spec again return the workspace
	// that exists; the same token with another spec is ErrExists. A provider that says Search may make a second
	// workspace: the dispatcher then looks for the token before it asks again and deletes a surplus.
	//
	// The dispatcher calls it once per token, and again only after ErrAmbiguous or a crash. ErrInvalid: never for
	// this spec. ErrQuota, ErrNoCapacity, ErrRateLimited, ErrUnavailable: nothing was made, later. ErrAmbiguous: it
	// may have been made.
	Create(ctx context.Context, req CreateRequest) (Workspace, error)

	// Get observes one workspace now. ErrNotFound when there is none of that id: it is gone for good.
	Get(ctx context.Context, id string) (Workspace, error)

	// Delete ends a workspace with everything in it. nil when it is gone, and when it was gone already. It may also
	// return nil while the end is still under way: Get then shows Deleting until it answers ErrNotFound. It works in
	// every state of a workspace, and may be repeated.
	Delete(ctx context.Context, id string) error

	// StartProcess starts cmd in a workspace that is Ready and returns at once. name is the identity of the process
	// within its workspace, 1 to 128 bytes [a-zA-Z0-9._-]: a name that was used before is ErrExists and starts nothing, also when that process has
	// ended. Where Capabilities.Attach is true the process outlives the host process that started it. ErrConflict
	// when the workspace is not in a state to start it (paused, deleting), ErrNotFound when it is gone.
	StartProcess(ctx context.Context, id, name string, cmd Cmd) (Process, error)
}

// CreateRequest asks for one workspace.
type CreateRequest struct {
	Token string // at most 26 bytes [a-z0-9], unique; recorded in the Store before the call
	Owner string // at most 26 bytes [a-z0-9-]; marks the fleet's workspaces
	Agent string // at most 40 bytes [a-zA-Z0-9._-]
	Spec  Spec
}

// Spec is what a workspace is made of; workspaces of equal specs are interchangeable. It holds no tenant, payload, env
// or secret.
type Spec struct {
	Image     string    // what to boot; the provider says what it names
	Resources Resources // zero fields: the provider's default
	Snapshot  string    // made by a Snapshotter; "" boots Image
	Options   any       // the provider's own settings, JSON-encodable; nil: its defaults
}

// Resources are asked for at Create and are what limits and prices count. A zero field is the provider's default.
type Resources struct {
	CPU      float64 // cores
	MemoryMB int     // 1 MB = 1<<20 bytes
	DiskMB   int
}

// Workspace is a workspace as observed at one moment.
type Workspace struct {
	ID    string // the provider's own, opaque
	Token string // of the CreateRequest
	Owner string
	Agent string
	State State
	Ready bool // Running, and accepts StartProcess

	// Home is the absolute path of the workspace's home folder as its processes see it, in which relative paths of
	// Cmd.Dir and Filer begin. "": unknown.
	Home string

	Created time.Time // zero: unknown
	Expires time.Time // the provider's own time-out; zero: none
	Message string    // why, when Failed; no secrets
}

// State of a workspace at its provider. What is gone has none: Get answers ErrNotFound.
type State string

const (
	Creating State = "creating"
	Running  State = "running"
	Paused   State = "paused"
	Changing State = "changing" // pausing, resuming, resizing
	Deleting State = "deleting" // on its way out; still held
	Failed   State = "failed"   // will not become ready any more; still held until deleted
)

// Capabilities is what a provider can do beyond its methods, as data.
type Capabilities struct {
	Create           CreateMode
	Attach           bool          // processes outlive the host process, and Attacher finds them
	PauseKinds       []PauseKind   // kinds that Pause takes; the first is the default; empty: no Pauser
	PausedCounts     bool          // paused workspaces count against the account's quota
	CreatesPerSecond float64       // pace that the provider states; 0: unknown
	CreateBurst      int           // 0: unknown
	MaxLifetime      time.Duration // of a workspace; 0: no end
}

// CreateMode says what a second Create with the same token does.
type CreateMode int

const (
	Idempotent CreateMode = iota // the same token gives the same workspace
	Search                       // may make a second one; the provider is a Lister or a Finder
)

// As finds an optional ability T of p. A wrapper, which has Unwrap() Provider, forwards abilities: it has T only if the
// provider within has it too, and where it does not implement T itself, the one within is used.
func As[T any](p Provider) (T, bool) {
	var none T
	inner, wrapped := p.(interface{ Unwrap() Provider })
	if !wrapped {
		t, ok := p.(T)
		return t, ok
	}
	within, ok := As[T](inner.Unwrap())
	if !ok {
		return none, false
	}
	if t, ok := p.(T); ok {
		return t, true
	}
	return within, true
}
