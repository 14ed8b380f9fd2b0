package localprovider

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/freshet-dev/freshet/provider"
)

// refuse makes an error of a class; fail adds the operation.
func refuse(class error, format string, args ...any) error {
	return &provider.Error{Class: class, Err: fmt.Errorf(format, args...)}
}

// fail makes what an exported method returns of an error from within.
func fail(op string, err error) error {
	var typed *provider.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed):
		named := *typed
		if named.Op == "" {
			named.Op = op
		}
		return &named
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return &provider.Error{Op: op, Class: class(err), Err: err}
}

// class says what a failed system call means for the dispatcher.
func class(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return provider.ErrUnavailable
	}
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM, syscall.EMLINK:
		return provider.ErrNoCapacity
	case syscall.E2BIG, syscall.ENAMETOOLONG:
		return provider.ErrInvalid
	}
	return provider.ErrUnavailable
}

// outside says that package os refused a path, since it leads out of an os.Root or is no folder to make one of. The system
// has no word for that.
func outside(err error) bool {
	var errno syscall.Errno
	return err != nil && !errors.As(err, &errno) && !errors.Is(err, fs.ErrClosed)
}
