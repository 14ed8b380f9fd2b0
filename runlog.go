package freshet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/store"
)

// runLog writes what a run's processes print into the task's log, and with it how far each process was read, so that
// whoever takes the run over goes on at the right byte. The log is a ring of segments: each is a blob that the record
// names, the last one is written anew as it grows, and the oldest fall out beyond maxLog.
type runLog struct {
	run *liveRun

	writing chan struct{} // holds a token while a flush or a checkpoint writes, so that one comes after the other

	mu       sync.Mutex // protects the fields below
	loaded   bool
	segments []segment
	tail     []byte // of the last segment: all of it
	saved    int    // bytes of tail that are recorded
	dirty    bool
	failures int   // flushes in a row
	end      int64 // bytes written to the log, over all runs
	procs    map[string]*procRecord
	note     string // not recorded yet
	timer    *time.Timer
	closed   bool
}

// segment is a piece of the log.
type segment struct {
	start int64
	size  int64
	blob  string
}

func (s segment) name() string { return fmt.Sprintf("%016x", s.start) }

// procRecord is what the Store keeps of a process: which workspace it is in, how far its output is in the log, its end.
type procRecord struct {
	Workspace string          `json:"workspace"`
	Read      provider.Offset `json:"read"`
	Exit      *provider.Exit  `json:"exit,omitempty"`
	changed   bool
}

func newRunLog(r *liveRun) *runLog {
	return &runLog{run: r, writing: make(chan struct{}, 1), end: r.task.LogSize, loaded: !r.adopted && r.task.Attempt <= 1 && r.task.LogSize == 0}
}

// load reads what earlier runs of the task have left.
func (l *runLog) load(ctx context.Context) error {
	l.mu.Lock()
	loaded := l.loaded
	l.mu.Unlock()
	if loaded {
		return nil
	}
	r := l.run
	segments, err := logSegments(ctx, r.store, r.task.ID)
	if err != nil {
		return err
	}
	procs, err := r.store.Entries(ctx, r.task.ID, store.EntryProcess)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded {
		return nil
	}
	l.loaded = true
	l.segments = segments
	l.procs = map[string]*procRecord{}
	for _, e := range procs {
		var p procRecord
		if json.Unmarshal(e.Data, &p) == nil && p.Workspace == r.ws.Token {
			l.procs[e.Name] = &p
		}
	}
	if n := len(segments); n > 0 {
		l.end = segments[n-1].start + segments[n-1].size
	}
	return nil
}

// logSegments are the pieces of a task's log that are kept, in order.
func logSegments(ctx context.Context, s store.Store, task string) ([]segment, error) {
	entries, err := s.Entries(ctx, task, store.EntryLog)
	if err != nil {
		return nil, err
	}
	segments := make([]segment, 0, len(entries))
	for _, e := range entries {
		var start int64
		if _, err := fmt.Sscanf(e.Name, "%x", &start); err == nil {
			segments = append(segments, segment{start: start, size: e.Size, blob: e.Blob})
		}
	}
	return segments, nil
}

// process is the record of a process in this workspace; nil: it was never read from.
func (l *runLog) process(name string) *procRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.procs[name]; p != nil {
		copied := *p
		return &copied
	}
	return nil
}

// write appends to the log what process name has printed, up to next.
func (l *runLog) write(name string, data []byte, next provider.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.tail = append(l.tail, data...)
	l.end += int64(len(data))
	l.procLocked(name).Read = next
	l.dirtyLocked()
}

// ended records how a process ended.
func (l *runLog) ended(name string, exit provider.Exit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.procLocked(name).Exit = &exit
	l.dirty = true
}

func (l *runLog) procLocked(name string) *procRecord {
	p := l.procs[name]
	if l.procs == nil {
		l.procs = map[string]*procRecord{}
	}
	if p == nil {
		p = &procRecord{Workspace: l.run.ws.Token}
		l.procs[name] = p
	}
	p.changed = true
	return p
}

// setNote has a note recorded soon.
func (l *runLog) setNote(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.note = text
	l.dirtyLocked()
}

// dirtyLocked has what is new written after a while: at once if it is much.
func (l *runLog) dirtyLocked() {
	l.dirty = true
	delay := logDelay
	switch {
	case l.failures > 0:
		delay = retryPause(l.failures)
	case len(l.tail) >= 2*logSegment:
		delay = 0
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(delay, func() { l.run.work.Go(l.flush) })
		return
	}
	if delay == 0 {
		l.timer.Reset(0)
	}
}

func (l *runLog) size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// close ends writing: nothing is recorded any more.
func (l *runLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// settle records all that is new, however often it takes, as long as the run has its lease.
func (l *runLog) settle(ctx context.Context) {
	for failures := 0; ; failures++ {
		l.flush(ctx)
		l.mu.Lock()
		clean := !l.dirty || l.closed
		l.mu.Unlock()
		if clean || l.run.lost() || !wait(ctx, retryPause(failures)) {
			return
		}
	}
}

// flush records what is new. What cannot be recorded now stays for the next flush.
func (l *runLog) flush(ctx context.Context) {
	if !l.beginWrite(ctx) {
		return
	}
	defer l.endWrite()
	l.mu.Lock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.closed || !l.dirty {
		l.mu.Unlock()
		return
	}
	part := l.takeLocked()
	l.mu.Unlock()
	err := bounded(ctx, func(ctx context.Context) error { return l.save(ctx, &part) })
	switch {
	case err == nil:
		l.mu.Lock()
		l.failures = 0
		l.mu.Unlock()
	case errors.Is(err, store.ErrLeaseLost):
		l.run.stop(ErrLeaseLost)
	default:
		if ctx.Err() == nil {
			l.run.core.log.Warn("log not recorded yet", "task", l.run.task.ID, "err", err)
		}
		l.mu.Lock()
		l.failures++
		l.untakeLocked(&part)
		l.mu.Unlock()
	}
}

// beginWrite waits for the turn to write this run's records; false: ctx has ended.
func (l *runLog) beginWrite(ctx context.Context) bool {
	select {
	case l.writing <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *runLog) endWrite() { <-l.writing }

// logPart is what one flush records.
type logPart struct {
	segments []segment // new and grown ones
	bytes    [][]byte
	drop     []segment // fallen out of the ring
	stale    []string  // blobs that a grown segment replaces
	entries  []store.Entry
	end      int64
	note     string

	before []segment
	tail   []byte
	saved  int
	procs  []string
}

// takeLocked cuts what is new into segments.
func (l *runLog) takeLocked() logPart {
	part := logPart{end: l.end, note: l.note, before: append([]segment(nil), l.segments...), tail: l.tail, saved: l.saved}
	l.dirty, l.note = false, ""
	start := l.end - int64(len(l.tail))
	rest := l.tail
	if len(rest) == l.saved { // nothing new
		rest = nil
	} else if n := len(l.segments); n > 0 && l.saved > 0 {
		part.stale = append(part.stale, l.segments[n-1].blob)
		l.segments = l.segments[:n-1]
	}
	for len(rest) > 0 {
		n := min(len(rest), logSegment)
		s := segment{start: start, size: int64(n), blob: blobKey(l.run.lease, "log", fmt.Sprintf("%016x-%x", start, n))}
		part.segments = append(part.segments, s)
		part.bytes = append(part.bytes, append([]byte(nil), rest[:n]...))
		l.segments = append(l.segments, s)
		rest = rest[n:]
		start += int64(n)
		if n == logSegment { // full: the next one begins a new segment
			l.tail = rest
		}
	}
	l.tail = append([]byte(nil), l.tail...)
	l.saved = len(l.tail)
	for len(l.segments) > 1 && l.end-l.segments[1].start >= maxLog {
		part.drop = append(part.drop, l.segments[0])
		l.segments = l.segments[1:]
	}
	for name, p := range l.procs {
		if !p.changed {
			continue
		}
		p.changed = false
		part.procs = append(part.procs, name)
		data, err := json.Marshal(p)
		if err != nil { // numbers and strings
			panic(err)
		}
		part.entries = append(part.entries, store.Entry{Kind: store.EntryProcess, Name: name, Data: data})
	}
	return part
}

// untakeLocked puts back what could not be recorded; what was written meanwhile follows it.
func (l *runLog) untakeLocked(part *logPart) {
	l.dirty = true
	grown := l.end - part.end
	l.tail = append(append([]byte(nil), part.tail...), l.tail[int64(len(l.tail))-grown:]...)
	l.segments, l.saved = part.before, part.saved
	if len(l.tail) > maxLog { // more than the ring keeps: the oldest is dropped unwritten
		l.tail, l.saved = append([]byte(nil), l.tail[len(l.tail)-maxLog:]...), 0
	}
	if l.note == "" {
		l.note = part.note
	}
	for _, name := range part.procs {
		l.procs[name].changed = true
	}
	l.dirtyLocked()
}

func (l *runLog) save(ctx context.Context, part *logPart) error {
	r := l.run
	s := store.Save{LogSize: part.end, Entries: part.entries}
	if part.note != "" {
		s.Status = &store.Change{Note: part.note}
	}
	for i, seg := range part.segments {
		if err := r.blobs.Put(ctx, seg.blob, bytes.NewReader(part.bytes[i])); err != nil {
			return err
		}
		s.Entries = append(s.Entries, store.Entry{Kind: store.EntryLog, Name: seg.name(), Blob: seg.blob, Size: seg.size})
	}
	for _, seg := range part.drop {
		s.Drop = append(s.Drop, store.EntryKey{Kind: store.EntryLog, Name: seg.name()})
		part.stale = append(part.stale, seg.blob)
	}
	if err := r.store.Save(ctx, r.lease, s); err != nil {
		return err
	}
	r.hub.wake(r.task.ID)
	if len(part.stale) > 0 {
		if err := r.blobs.Delete(ctx, part.stale...); err != nil {
			r.core.log.Warn("old log not deleted", "task", r.task.ID, "err", err)
		}
	}
	return nil
}

// blobKey is written by one run alone: its fence is in it.
func blobKey(l store.Lease, kind, name string) string {
	return fmt.Sprintf("%s/%s/%d/%s", l.Task, kind, l.Fence, name)
}
