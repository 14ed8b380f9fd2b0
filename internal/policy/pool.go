package policy

import "github.com/freshet-dev/freshet/store"

// Target is how many spares of each tier a pool should have.
type Target struct {
	Warm, Paused int
}

// Refilling is what brings a pool to its target.
type Refilling struct {
	Create int
	Pause  []store.Workspace
	Delete []store.Workspace
}

// Refill compares a pool's target with its spares. Those on their way in count as what they will be, those on their way
// out for nothing, so that nothing is made twice. Members of another spec are deleted, but only as others are ready to
// take their place; kept workspaces of a tenant are no spares.
func Refill(t Target, spec string, spares []store.Workspace) Refilling {
	var do Refilling
	var warm, paused, coming, pausing int
	var ready, asleep, old []store.Workspace
	for _, w := range spares {
		switch {
		case w.Tenant != "" || w.Intent == store.IntentDelete:
		case w.Intent == store.IntentPause:
			pausing++
		case w.Spec != spec:
			if w.Intent == store.IntentNone {
				old = append(old, w)
			}
		case w.State == store.WorkspaceNew || w.Intent != store.IntentNone:
			coming++
		case w.State == store.WorkspaceReady:
			warm++
			ready = append(ready, w)
		case w.State == store.WorkspacePaused:
			paused++
			asleep = append(asleep, w)
		}
	}
	want := t.Warm + t.Paused
	have := warm + paused + coming + pausing
	do.Create = max(want-have, 0)
	for n := min(warm-t.Warm, t.Paused-paused-pausing); n > 0; n-- {
		do.Pause = append(do.Pause, ready[0])
		ready = ready[1:]
		warm--
		pausing++
	}
	for surplus := have - want; surplus > 0; surplus-- {
		switch {
		case warm > t.Warm && len(ready) > 0:
			do.Delete, ready = append(do.Delete, ready[0]), ready[1:]
			warm--
		case paused+pausing > t.Paused && len(asleep) > 0:
			do.Delete, asleep = append(do.Delete, asleep[0]), asleep[1:]
			paused--
		}
	}
	for i := 0; i < len(old) && i < warm+paused+max(len(old)-want, 0); i++ {
		do.Delete = append(do.Delete, old[i])
	}
	return do
}
