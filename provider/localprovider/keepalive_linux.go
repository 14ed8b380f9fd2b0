package localprovider

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// KeepAlive sets the end of a workspace, to the second. The next Get or List of any process after that deletes it. There
// may never be one, so a watchdog ends its processes no later than half a minute after its time: a shell that KeepAlive
// starts, one for all workspaces of the root folder, which goes when there is nothing left to watch. The time is that of
// the machine's clock.
func (p *Provider) KeepAlive(ctx context.Context, id string, ttl time.Duration) error {
	if ttl <= 0 {
		return fail("keep alive", refuse(provider.ErrInvalid, "time-out %v", ttl))
	}
	return fail("keep alive", p.change(ctx, id, func(w *workspace) error {
		if w.expired() {
			return refuse(provider.ErrConflict, "workspace has expired")
		}
		end := time.Now().Add(ttl + time.Second - 1).Unix()
		if err := replaceFile(w.file(expiresFile), fmt.Appendf(nil, "%d %s\n", end, w.Groups.Tree)); err != nil {
			return err
		}
		return startWatchdog(ctx, w.root)
	}))
}

// watchdogFile is locked by the watchdog while it lives; in it is who that is.
const watchdogFile = "watchdog"

// The watchdog works in the folder of the workspaces; descriptor 3 is its file. It kills through the control group if
// there is one, and then what is left in the supervisors' process groups. A process is known by its start too, the 22nd
// field of its stat, the second of which may hold blanks.
const watchdogScript = `read -r stat <"/proc/$$/stat" && read -r boot </proc/sys/kernel/random/boot_id || exit
set -- ${stat##*) }
echo "$$ ${20} $boot 0" >&3
while :; do
	now=$(date +%s 3>&-) || exit
	nap=0
	for file in */expires; do
		read -r end tree <"$file" || continue
		if [ "$end" -gt "$now" ]; then
			left=$((end - now))
			if [ "$nap" -eq 0 ] || [ "$left" -lt "$nap" ]; then nap=$left; fi
			continue
		fi
		if [ -f "$tree/cgroup.kill" ]; then
			echo 1 >"$tree/cgroup.kill"
		elif [ -f "$tree/freezer.state" ]; then
			for group in "$tree" "$tree"/*/; do
				while read -r pid; do kill -KILL "$pid"; done <"$group/cgroup.procs"
			done
			echo THAWED >"$tree/freezer.state"
		fi
		for file in "${file%expires}"proc/*/start; do
			read -r pid started rest <"$file" && read -r stat <"/proc/$pid/stat" || continue
			set -- ${stat##*) }
			if [ "${20}" = "$started" ]; then kill -KILL "-$pid"; fi
		done
	done
	[ "$nap" -gt 0 ] || exit 0
	[ "$nap" -le 30 ] || nap=30
	sleep "$nap" 3>&-
done`

// startWatchdog starts the watchdog unless it lives.
func startWatchdog(ctx context.Context, r *root) error {
	f, err := os.OpenFile(r.path(watchdogFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for wait := newPause(); ; {
		err := tryLock(f, syscall.LOCK_EX)
		if err == nil {
			break
		}
		if err != errLocked {
			return err
		}
		// It lives, or is being started, or has just ended.
		if s, err := parseSupervisor(readText(f.Name())); err == nil && s.alive(r.boot) {
			return nil
		}
		if err := wait.wait(ctx); err != nil {
			return err
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	c := child{pidfd: -1}
	c.pid, _, err = syscall.StartProcess(shell, []string{"sh", "-c", watchdogScript}, &syscall.ProcAttr{
		Dir:   r.path(workFolder),
		Env:   []string{"PATH=" + basePath},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), f.Fd()}, // with f it inherits the lock
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &c.pidfd},
	})
	if err != nil {
		return err
	}
	stat, err := readProc(c.pid)
	r.watcher.adopt(f.Name(), supervisor{pid: c.pid, started: stat.started, boot: r.boot}, c)
	return err
}

// stopWatchdog ends the watchdog if no workspace has an end. Should another process set one just now, its next KeepAlive
// starts a new one.
func stopWatchdog(ctx context.Context, r *root) error {
	file := r.path(watchdogFile)
	s, err := parseSupervisor(readText(file))
	if err != nil || !s.alive(r.boot) {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(r.path(workFolder), "*", expiresFile))
	if err != nil || len(left) > 0 {
		return err
	}
	syscall.Kill(-s.pid, syscall.SIGTERM)
	return r.watcher.drain(ctx, file)
}
