package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/freshet-dev/freshet"
)

// table writes rows whose cells are separated by tabs, right-aligned.
func table(out io.Writer, align uint, fill func(row func(format string, args ...any))) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', align)
	fill(func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) })
	_ = w.Flush() // the screen is no place to report that the screen is gone
	fmt.Fprintln(out)
}

// printTenants shows what each tenant had, and all together.
func printTenants(out io.Writer, ends []freshet.Status) {
	by := map[string][]freshet.Status{}
	for _, s := range ends {
		by[s.Task.Tenant] = append(by[s.Task.Tenant], s)
		by["all"] = append(by["all"], s)
	}
	var names []string
	for name := range by {
		if name != "all" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	fmt.Fprintln(out)
	table(out, tabwriter.AlignRight, func(row func(string, ...any)) {
		row("tenant\ttasks\tok\twait p50\twait max\trun p50\trun max\tcost\t")
		for _, name := range append(names, "all") {
			var waits, runs []time.Duration
			ok, cost := 0, 0.0
			for _, s := range by[name] {
				if s.State == freshet.StateSucceeded {
					ok++
				}
				waits = append(waits, s.Started.Sub(s.Created))
				runs = append(runs, s.Finished.Sub(s.Started))
				cost += s.Cost
			}
			row("%s\t%d\t%d\t%s\t%s\t%s\t%s\t$%.5f\t", name, len(by[name]), ok,
				short(median(waits)), short(slices.Max(waits)), short(median(runs)), short(slices.Max(runs)), cost)
		}
	})
}

// printPaths shows how long it took from the admission of a task to its agent, by where the workspace came from.
func printPaths(out io.Writer, s freshet.AgentStats) {
	table(out, tabwriter.AlignRight, func(row func(string, ...any)) {
		row("workspace\ttasks\tready p50\tready p95\tready p99\t")
		row("warm\t%s\t", quantiles(s.WarmBoot))
		row("cold\t%s\t", quantiles(s.ColdBoot))
	})
}

func quantiles(q freshet.Quantiles) string {
	return fmt.Sprintf("%d\t%s\t%s\t%s", q.N, short(q.P50), short(q.P95), short(q.P99))
}

// printFindings shows what stands out in all packages.
func printFindings(out io.Writer, reports []report) {
	var all report
	for _, r := range reports {
		all.Files += r.Files
		all.Lines += r.Lines
		all.Functions += r.Functions
		all.Todos += r.Todos
		all.Undocumented += r.Undocumented
		all.Broken += r.Broken
	}
	fmt.Fprintf(out, "%d packages: %d files, %d lines, %d functions, %d TODOs, %d exported functions and types without a comment",
		len(reports), all.Files, all.Lines, all.Functions, all.Todos, all.Undocumented)
	if all.Broken > 0 {
		fmt.Fprintf(out, ", %d files that do not parse", all.Broken)
	}
	fmt.Fprint(out, "\n\n")
	table(out, 0, func(row func(string, ...any)) {
		for _, r := range top(reports, func(r report) int { return r.Branchy.Paths }) {
			row("most complex\t%s\t%s\t%d paths\t%s", r.Package, r.Branchy.Name, r.Branchy.Paths, r.Branchy.At)
		}
		for _, r := range top(reports, func(r report) int { return r.Longest.Lines }) {
			row("longest\t%s\t%s\t%d lines\t%s", r.Package, r.Longest.Name, r.Longest.Lines, r.Longest.At)
		}
		for _, r := range top(reports, func(r report) int { return r.Todos }) {
			row("most to do\t%s\t\t%d TODOs", r.Package, r.Todos)
		}
		for _, r := range top(reports, func(r report) int { return r.Imports }) {
			row("most imports\t%s\t\t%d packages", r.Package, r.Imports)
		}
	})
}

// top are the reports with the highest values.
func top(reports []report, value func(report) int) []report {
	const few = 3
	sorted := slices.SortedStableFunc(slices.Values(reports), func(a, b report) int { return cmp.Compare(value(b), value(a)) })
	return sorted[:min(few, len(sorted))]
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// short rounds to what a reader wants to know.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}
