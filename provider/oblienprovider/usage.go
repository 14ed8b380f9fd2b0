package oblienprovider

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// Usage asks the machine for the CPU time of the workspace's processes, as Oblien's statistics know the load of the whole
// machine at the moment alone; memory and disk are from there.
func (p *Provider) Usage(ctx context.Context, id string) (provider.Usage, error) {
	var s struct {
		stats
		Inner *stats `json:"stats"`
	}
	if err := p.do(ctx, request{op: "usage", method: http.MethodGet, path: at(id, "stats")}, &s); err != nil {
		return provider.Usage{}, err
	}
	if s.Inner != nil {
		s.stats = *s.Inner
	}
	out, code, err := p.script(ctx, id, "usage", usageScript)
	switch {
	case err != nil:
		return provider.Usage{}, p.explain(ctx, "usage", id, err)
	case code != 0:
		return provider.Usage{}, unexpected("usage", code)
	}
	used := cpuTime(string(out))
	p.doorways.set(id, func(way *doorway) {
		way.used = max(way.used, used) // what a process's orphans used is not known any more when they have ended
		used = way.used
	})
	return provider.Usage{CPUTime: used, MemoryMB: int(math.Round(s.MemoryMB)), DiskMB: int(math.Round(s.DiskMB))}, nil
}

type stats struct {
	MemoryMB float64 `json:"memoryUsedMB"`
	DiskMB   float64 `json:"guestDiskUsedMB"`
}

// cpuTime adds up what the usage script prints.
func cpuTime(report string) time.Duration {
	var sum time.Duration
	tick := time.Second / 100
	for line := range strings.Lines(report) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, value := range strings.Fields(rest) {
			switch what {
			case "hz":
				if hz, err := strconv.Atoi(value); err == nil && hz > 0 {
					tick = time.Second / time.Duration(hz)
				}
			case "runs":
				if n, err := strconv.ParseInt(value, 10, 64); err == nil {
					sum += time.Duration(n) * tick
				}
			case "ended": // such as 0m1.250s
				minutes, seconds, _ := strings.Cut(strings.ReplaceAll(value, ",", "."), "m")
				if d, err := time.ParseDuration(minutes + "m" + seconds); err == nil {
					sum += d
				}
			}
		}
	}
	return sum
}
