package provider

import (
	"context"
	"iter"
	"time"
)

// Cmd is a process to run in a workspace.
type Cmd struct {
	Args  []string          // program and arguments; no shell unless Args names one
	Dir   string            // "": the workspace's home; relative: below it
	Env   map[string]string // added to the image's
	Stdin []byte            // all of its standard input
}

// Process is a process in a workspace, running or ended. Its methods may be called from many goroutines.
type Process interface {
	// Output yields what the process has written after from, and follows it until the process has ended and all is
	// read, or ctx ends. It may be called again, and by several readers. Chunks of one stream come in order; their
	// Data is valid until the next one. An error is yielded once, last: ErrNotFound when the workspace is gone.
	Output(ctx context.Context, from Offset) iter.Seq2[Chunk, error]

	// Wait returns how the process ended, as often as it is asked. ErrNotFound when the workspace is gone,
	// ErrLost when the process ended and nobody knows how.
	Wait(ctx context.Context) (Exit, error)

	// Signal sends sig to the process and its descendants in the workspace. nil when it has ended already.
	Signal(ctx context.Context, sig Signal) error
}

// Offset is a place in the output of a process, in bytes of each stream. The zero Offset is the beginning.
type Offset struct {
	Stdout, Stderr int64
}

// Chunk is a piece of output.
type Chunk struct {
	Stream Stream
	Data   []byte
	Next   Offset // where to go on after this chunk
}

// Stream is one of the two outputs of a process. A provider that cannot tell them apart calls all of it Stdout.
type Stream int

const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Signal is what Process.Signal sends; the numbers are those of POSIX.
type Signal int

const (
	Kill Signal = 9
	Term Signal = 15
)

// Exit is how a process ended.
type Exit struct {
	Code   int       // 0 is success; meaningless when Signal is set
	Signal string    // name of the signal that ended it, e.g. "SIGKILL"; "": it exited by itself
	OOM    bool      // it was ended because its workspace ran out of memory
	At     time.Time // zero: unknown
}
