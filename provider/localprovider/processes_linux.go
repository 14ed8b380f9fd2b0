package localprovider

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// processes are the processes of a workspace: how they are found, stopped, measured and ended.
type processes struct{ of *workspace }

func (w *workspace) processes() processes { return processes{w} }

// claim is the claim with this folder name.
func (p processes) claim(folder string) claim {
	return claim{dir: p.of.file(procFolder, folder), leaf: p.of.Groups.leaf(folder)}
}

// claims are those of all names, also of those that were never started.
func (p processes) claims() []claim {
	entries, _ := os.ReadDir(p.of.file(procFolder)) // none when it is gone
	claims := make([]claim, len(entries))
	for i, e := range entries {
		claims[i] = p.claim(e.Name())
	}
	return claims
}

// supervisors are those of all processes that were ever started; grouped says that all are in control groups.
func (p processes) supervisors() (all []supervisor, grouped bool) {
	groups := p.of.Groups
	grouped = groups.has(groups.Tree)
	for _, c := range p.claims() {
		s, err := c.supervisor()
		if err != nil {
			continue
		}
		all = append(all, s)
		grouped = grouped && groups.has(c.leaf)
	}
	return all, grouped
}

// family is how the processes are found that are in no group.
func (p processes) family(supervisors []supervisor) family {
	at := p.of.root.path(workFolder, p.of.Token)
	return family{
		supervisors: supervisors,
		boot:        p.of.root.boot,
		marks:       []string{"HOME=" + filepath.Join(at, homeFolder), "TMPDIR=" + filepath.Join(at, tmpFolder)},
		whole:       true,
	}
}

// freeze has all processes stand still when it returns.
func (p processes) freeze(ctx context.Context) error {
	groups := p.of.Groups
	if groups.has(groups.Tree) {
		if err := groups.freeze(ctx, groups.Tree); err != nil {
			return err
		}
	}
	supervisors, grouped := p.supervisors()
	if grouped || len(supervisors) == 0 {
		return nil
	}
	return p.family(supervisors).stop(ctx)
}

// thaw lets them go on.
func (p processes) thaw() error {
	var err error
	groups := p.of.Groups
	if groups.has(groups.Tree) {
		err = groups.thaw(groups.Tree)
	}
	if supervisors, grouped := p.supervisors(); !grouped && len(supervisors) > 0 {
		_, failed := p.family(supervisors).signal(syscall.SIGCONT, 0)
		err = errors.Join(err, failed)
	}
	return err
}

// end kills them until none is left.
func (p processes) end(ctx context.Context) error {
	for wait := newPause(); ; {
		n, err := p.kill(ctx)
		if err != nil || n == 0 {
			return err
		}
		if err := wait.wait(ctx); err != nil {
			return err
		}
	}
}

// kill kills them once, and says how many there were.
func (p processes) kill(ctx context.Context) (int, error) {
	n := 0
	if groups := p.of.Groups; groups.Tree != "" {
		n = groups.kill(ctx, groups.Tree, 0)
	}
	supervisors, grouped := p.supervisors()
	if grouped || len(supervisors) == 0 && !p.of.nameless() {
		return n, nil
	}
	more, err := p.family(supervisors).kill(0)
	return n + more, err
}

// sum adds up their CPU time and memory.
func (p processes) sum() (sum procStat, err error) {
	members := make(map[int]procStat)
	supervisors, grouped := p.supervisors()
	if grouped {
		for _, pid := range groupPIDs(p.of.Groups.Tree) {
			if s, err := readProc(pid); err == nil {
				members[pid] = s
			}
		}
	} else if len(supervisors) > 0 {
		all, err := p.of.root.procs.recent()
		if err != nil {
			return sum, err
		}
		f := p.family(supervisors)
		f.whole = false // which would take reading every environment of the machine
		members = f.among(all)
	}
	// What an ended process has used is in its report. Its supervisor may still be there and count it too, and those who
	// were there a moment ago may not be any more.
	ended := make(map[int]bool)
	for _, c := range p.claims() {
		r, _ := readReport(c.file(exitFile))
		if s, err := c.supervisor(); r.ended && err == nil {
			ended[s.pid] = true
			sum.cpu += r.cpu
		}
	}
	for pid, s := range members {
		if ended[s.session] {
			if s, err = readProc(pid); err != nil || s.ended() || ended[pid] {
				continue
			}
		}
		sum.cpu += s.cpu
		sum.resident += s.resident
	}
	return sum, nil
}
