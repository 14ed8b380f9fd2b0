package localprovider

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// OwnerName gives the first of the names local-1, local-2, … that no live process bears. Each is a file in the root
// folder that its bearer keeps locked; the lock ends with the process, so that the next one finds the name again.
func (p *Provider) OwnerName(ctx context.Context) (name string, release func(), err error) {
	r, err := p.open()
	if err != nil {
		return "", nil, fail("owner name", err)
	}
	for i := 1; ; i++ {
		if err := ctx.Err(); err != nil {
			return "", nil, err
		}
		name = fmt.Sprintf("local-%d", i)
		f, err := os.OpenFile(r.path(namesFolder, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			err = tryLock(f, syscall.LOCK_EX)
			if err == nil {
				return name, sync.OnceFunc(func() { unlock(f) }), nil
			}
			f.Close()
		}
		if err != errLocked {
			return "", nil, fail("owner name", err)
		}
	}
}
