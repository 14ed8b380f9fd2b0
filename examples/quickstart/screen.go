package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/freshet-dev/freshet"
)

// screen shows how far the agents are: on a terminal as one line that is drawn again and again, elsewhere as a line for
// each tenth.
type screen struct {
	out    io.Writer
	redraw bool
	began  time.Time
	shown  int // tenths, where lines are not drawn again
}

func newScreen(out *os.File, plain bool) *screen {
	return &screen{out: out, redraw: !plain && isTerminal(out), began: time.Now()}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// show tells where all stand who have not ended; the rest have.
func (s *screen) show(all int, at freshet.AgentStats) {
	const width = 30
	ended := all - at.Queued - at.Starting - at.Running
	figures := fmt.Sprintf("%3d/%d  running %2d  waiting %3d  failed %d  %4.1fs",
		ended, all, at.Starting+at.Running, at.Queued, at.Failed, time.Since(s.began).Seconds())
	if s.redraw {
		full := width * ended / all
		fmt.Fprintf(s.out, "\r\x1b[K  %s%s %s", strings.Repeat("█", full), strings.Repeat("░", width-full), figures)
		return
	}
	if tenths := 10 * ended / all; tenths > s.shown {
		s.shown = tenths
		fmt.Fprintln(s.out, figures)
	}
}

// end leaves the line on which the progress was shown.
func (s *screen) end() {
	if s.redraw {
		fmt.Fprintln(s.out)
	}
}
