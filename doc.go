// Package freshet runs AI agents for the service that imports it: each agent in its own isolated workspace, made when a
// user asks and gone when it is done, from zero to thousands and back to zero.
//
// # Model
//
// An Agent is a kind of agent: the image and resources of its workspaces, time-outs, retry, pool, and a Handler that does
// the work. A Task is one request to run an agent for one tenant. A Run is one try at a task, in a workspace of its own.
// A Dispatcher admits tasks in the order of the line and within the Limits, brings a workspace to ready, calls the handler,
// records how it ended and deletes the workspace.
//
// It is built from three contracts: a provider.Provider makes workspaces, a store.Store keeps the truth, a queue.Queue
// keeps the line. With Store and Queue nil both are in memory.
//
// # Handlers
//
// Command makes a handler of a program in any language. A handler in Go is given a Run: Exec runs processes in the
// workspace, Upload and Download move files, Checkpoint saves what a later run goes on from, Step does something once.
// A handler that returns nil has succeeded; an error is final unless it wraps ErrRetry or Retry.If says otherwise.
//
// # Concurrency
//
// All methods of a Dispatcher and of a Run may be called from many goroutines. New starts no goroutine, Start starts a
// fixed number, each run one more and one for each of its processes. Shutdown ends them all and waits for them. A
// Dispatcher that is never started is a client: it has none.
//
// # Errors
//
// Bad input is ErrInvalid and changes nothing. A limit that refuses is a *LimitError with the time to come back. A task
// that did not succeed is a *TaskError whose chain holds the cause.
package freshet
