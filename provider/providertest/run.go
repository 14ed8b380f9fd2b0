package providertest

import (
	"slices"
	"testing"

	"github.com/freshet-dev/freshet/provider"
)

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	probe := h.New(t)
	caps := probe.Capabilities()
	missing := make(map[string]bool)
	for _, c := range cases() {
		if lack := c.lacks(h, probe, caps); lack != "" {
			if !missing[lack] {
				t.Log(lack)
			}
			missing[lack] = true
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if h.Parallel {
				t.Parallel()
			}
			around(h)(t, func(t *testing.T) { c.play(t, h) })
		})
	}
}

func around(h Harness) func(*testing.T, func(*testing.T)) {
	if h.Around != nil {
		return h.Around
	}
	return func(t *testing.T, f func(*testing.T)) { f(t) }
}

// conformance is one case of the suite.
type conformance struct {
	name  string
	rule  string // what is checked, printed when it is broken
	needs []need
	run   func(*env)
}

// need is what a case cannot run without: it returns "" or what is missing.
type need func(h Harness, p provider.Provider, caps provider.Capabilities) (missing string)

func (c conformance) play(t *testing.T, h Harness) {
	defer func() {
		if t.Failed() {
			t.Logf("the rule: %s", c.rule)
		}
	}()
	e := newEnv(t, h)
	defer e.clean() // before the clean-ups of t, which may close the provider
	c.run(e)
}

func (c conformance) lacks(h Harness, p provider.Provider, caps provider.Capabilities) string {
	for _, n := range c.needs {
		if missing := n(h, p, caps); missing != "" {
			return missing
		}
	}
	return ""
}

func cases() []conformance {
	return slices.Concat(workspaceCases(), createCases(), processCases(), outputCases(), signalCases(), attachCases(),
		pauseCases(), fileCases(), archiveCases(), listCases(), abilityCases(), faultCases(), manyCases())
}

// ability is the need for an optional interface.
func ability[T any](name string) need {
	return func(_ Harness, p provider.Provider, _ provider.Capabilities) string {
		if _, ok := provider.As[T](p); ok {
			return ""
		}
		return "not " + name
	}
}

func attaches(_ Harness, _ provider.Provider, caps provider.Capabilities) string {
	if caps.Attach {
		return ""
	}
	return "processes end with their host process (Capabilities.Attach is false)"
}

func reopens(h Harness, _ provider.Provider, _ provider.Capabilities) string {
	if h.Reopen != nil {
		return ""
	}
	return "taking over is not checked (Harness.Reopen is nil)"
}

func pauses(kind provider.PauseKind) need {
	return func(_ Harness, _ provider.Provider, caps provider.Capabilities) string {
		if slices.Contains(caps.PauseKinds, kind) {
			return ""
		}
		return "no pause of kind " + string(kind)
	}
}

func fails(h Harness, _ provider.Provider, _ provider.Capabilities) string {
	if h.Fail != nil {
		return ""
	}
	return "failed workspaces are not checked (Harness.Fail is nil)"
}

func vanishes(h Harness, _ provider.Provider, _ provider.Capabilities) string {
	if h.Vanish != nil {
		return ""
	}
	return "vanished workspaces are not checked (Harness.Vanish is nil)"
}

func limitsUpload(h Harness, _ provider.Provider, _ provider.Capabilities) string {
	if h.MaxUploadBytes > 0 || h.MaxUploadFiles > 0 {
		return ""
	}
	return "no limit of Upload (Harness.MaxUploadBytes and MaxUploadFiles are 0)"
}
