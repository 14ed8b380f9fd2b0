//go:build linux

package localprovider

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/provider"
)

// Many readers follow many processes, and each gets every byte in order.
func TestManyReaders(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		var all sync.WaitGroup
		ctx := b.ctx()
		for i := range 10 {
			p := b.sh(w.ID, fmt.Sprint(i), "i=0; while [ $i -lt 100 ]; do echo $i; echo $i >&2; i=$((i+1)); [ $((i % 10)) -ne 0 ] || sleep 0.01; done")
			for range 3 {
				all.Go(func() {
					var out, diag strings.Builder
					for c, err := range p.Output(ctx, provider.Offset{}) {
						switch {
						case err != nil:
							t.Error(err)
						case c.Stream == provider.Stdout:
							out.Write(c.Data)
						default:
							diag.Write(c.Data)
						}
						if c.Next.Stdout != int64(out.Len()) || c.Next.Stderr != int64(diag.Len()) {
							t.Errorf("Next is %+v after %d and %d bytes", c.Next, out.Len(), diag.Len())
						}
					}
					var want strings.Builder
					for n := range 100 {
						fmt.Fprintln(&want, n)
					}
					if out.String() != want.String() || diag.String() != want.String() {
						t.Errorf("output %q, %q", out.String(), diag.String())
					}
				})
			}
		}
		all.Wait()
	})
}

// Output ends with the process, although a descendant goes on writing.
func TestOutputEndsWithTheProcess(t *testing.T) {
	onSystems(t, func(t *testing.T, b *bench) {
		w := b.make(provider.Spec{})
		p := b.sh(w.ID, "main", "(while :; do echo more; done) & echo up; sleep 0.1; exit 4")
		n := 0
		for c, err := range p.Output(b.ctx(), provider.Offset{}) {
			b.must(err)
			n += len(c.Data)
		}
		if n == 0 {
			t.Error("no output")
		}
		if exit := b.exit(p); exit.Code != 4 {
			t.Errorf("%+v", exit)
		}
		b.must(p.Signal(b.ctx(), provider.Kill))
		for _, err := range p.Output(b.ctx(), provider.Offset{Stdout: -1}) {
			b.want(err, provider.ErrInvalid)
		}
	})
}
