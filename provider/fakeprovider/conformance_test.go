package fakeprovider_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/provider/providertest"
)

// harness runs the suite with a fake of this configuration, in virtual time.
func harness(cfg fakeprovider.Config) providertest.Harness {
	cfg.Main = play
	return providertest.Harness{
		New: func(t *testing.T) provider.Provider {
			p := fakeprovider.New(cfg)
			t.Cleanup(p.Close)
			return p
		},
		Cmd:    scripted,
		Around: synctest.Test,
		Reopen: func(t *testing.T, p provider.Provider) provider.Provider {
			old := p.(*fakeprovider.Provider)
			old.Crash()
			return old.Sibling()
		},
		Fail:   func(_ *testing.T, p provider.Provider, id string) { p.(*fakeprovider.Provider).Fail(id) },
		Vanish: func(_ *testing.T, p provider.Provider, id string) { p.(*fakeprovider.Provider).Vanish(id) },
		Many:   300,
	}
}

func TestConformance(t *testing.T) {
	t.Run("at once", func(t *testing.T) { providertest.Run(t, harness(fakeprovider.Config{})) })

	t.Run("slow", func(t *testing.T) {
		providertest.Run(t, harness(fakeprovider.Config{
			Boot:   fakeprovider.LogNormal(800*time.Millisecond, 3*time.Second, 1),
			Pause:  fakeprovider.Fixed(time.Second),
			Resume: fakeprovider.Uniform(100*time.Millisecond, time.Second, 2),
			Delete: fakeprovider.Fixed(2 * time.Second),
			Fault: func(c fakeprovider.Call) fakeprovider.Fault {
				if c.Op == "create" {
					return fakeprovider.Fault{Delay: 200 * time.Microsecond, AnswerDelay: 2 * time.Millisecond}
				}
				return fakeprovider.Fault{}
			},
		}))
	})

	t.Run("limited", func(t *testing.T) {
		h := harness(fakeprovider.Config{
			CreatesPerSecond: 20, CreateBurst: 5, Capacity: 100,
			Capabilities: func(c *provider.Capabilities) {
				c.Create, c.Attach, c.PausedCounts = provider.Search, false, true
				c.PauseKinds = []provider.PauseKind{provider.DiskOnly}
			},
		})
		h.Many = 100
		providertest.Run(t, h)
	})

	t.Run("bare", func(t *testing.T) {
		h := harness(fakeprovider.Config{Capabilities: func(c *provider.Capabilities) { c.Attach, c.PauseKinds = false, nil }})
		inMemory := h.New
		h.New = func(t *testing.T) provider.Provider { return struct{ provider.Provider }{inMemory(t)} }
		h.Reopen, h.Fail, h.Vanish = nil, nil, nil
		providertest.Run(t, h)
	})

	t.Run("in real time", func(t *testing.T) {
		h := harness(fakeprovider.Config{})
		h.Around, h.Parallel = nil, true
		providertest.Run(t, h)
	})
}
