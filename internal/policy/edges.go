package policy

import "github.com/freshet-dev/freshet/store"

// TaskEdges are the changes of state that a task can go through. docs/lifecycle.md draws them.
func TaskEdges() map[State][]State {
	ends := []State{store.StateSucceeded, store.StateFailed, store.StateCanceled}
	return map[State][]State{
		store.StateQueued:   {store.StateStarting, store.StateRunning, store.StateFailed, store.StateCanceled, store.StateExpired},
		store.StateStarting: append([]State{store.StateRunning, store.StateQueued}, ends...),
		store.StateRunning:  append([]State{store.StateQueued}, ends...),
	}
}
