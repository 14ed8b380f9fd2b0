package store

import "errors"

var (
	// ErrLeaseLost: another run has the task, or it has finished. Nothing was written; stop.
	ErrLeaseLost = errors.New("freshet: lease lost")
	// ErrNotFound: no such task or blob.
	ErrNotFound = errors.New("freshet: not found")
	// ErrFinished: the task has ended.
	ErrFinished = errors.New("freshet: task has finished")
	// ErrKeyConflict: the tenant used this idempotency key for another request.
	ErrKeyConflict = errors.New("freshet: idempotency key was used for another request")
	// ErrExists: the task id was used for another request.
	ErrExists = errors.New("freshet: task id exists")
	// ErrConflict: the row has changed since it was read, or its state does not allow this.
	ErrConflict = errors.New("freshet: conflict")
)
