package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/freshet-dev/freshet/provider"
)

// StartProcess starts a process with a small environment of its own: PATH, HOME, TMPDIR, LANG, Config.Env and cmd.Env,
// nothing of the host process. It passes through a shell: a name that cannot be a shell's variable is ErrInvalid, and the
// few variables that a shell sets for itself, such as IFS and PWD, arrive as the shell sets them. cmd.Dir may be an
// absolute path of the machine. A program that cannot be started shows as an exit with 126 or 127 and a line in its error
// output.
func (p *Provider) StartProcess(ctx context.Context, id, name string, cmd provider.Cmd) (provider.Process, error) {
	r, err := p.use(ctx)
	if err == nil {
		err = checkCmd(cmd)
	}
	if err != nil {
		return nil, fail("start", err)
	}
	started, err := start(ctx, r, id, name, cmd)
	if err != nil {
		return nil, fail("start", err)
	}
	return started, nil
}

// Attach finds a process by its name, in whichever host process it was started. One whose host process died just before
// it could run is ErrNotFound, and its name is free.
func (p *Provider) Attach(ctx context.Context, id, name string) (provider.Process, error) {
	r, err := p.use(ctx)
	if err != nil {
		return nil, fail("attach", err)
	}
	found, err := attach(ctx, r, id, name)
	if err != nil {
		return nil, fail("attach", err)
	}
	return found, nil
}

func attach(ctx context.Context, r *root, id, name string) (*process, error) {
	notFound := &provider.Error{Class: provider.ErrNotFound}
	folder, err := processFolder(name)
	if err != nil {
		return nil, err
	}
	w, err := r.find(id)
	if err != nil {
		return nil, err
	}
	if w.deleting {
		return nil, notFound
	}
	c := w.processes().claim(folder)
	s, err := c.supervisor()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound
	}
	if err == nil && w.state() != provider.Paused { // in which a supervisor might wait for ever to go on
		var begun bool
		if begun, err = c.begun(ctx, r.boot); err == nil && !begun {
			return nil, notFound
		}
	}
	if err != nil {
		return nil, err
	}
	return &process{claim: c, supervisor: s, workspace: w}, nil
}

func start(ctx context.Context, r *root, id, name string, cmd provider.Cmd) (*process, error) {
	folder, err := processFolder(name)
	if err == nil {
		err = r.watcher.open()
	}
	if err != nil {
		return nil, err
	}
	w, err := r.find(id)
	if err == nil {
		err = w.running()
	}
	if err != nil {
		return nil, err
	}
	w, lock, err := w.lock(ctx, syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer unlock(lock)
	if err := w.running(); err != nil { // as it is now
		return nil, err
	}
	dir, err := workingFolder(w, cmd.Dir)
	if err != nil {
		return nil, err
	}
	c := w.processes().claim(folder)
	held, err := c.take(ctx, r.boot)
	if err != nil {
		return nil, err
	}
	defer unlock(held)
	w.Groups.make()
	w.Groups.limit(w.Resources, r.cfg.Processes)
	s, err := launch(w, c, dir, cmd)
	if err != nil {
		c.clear()
		return nil, err
	}
	return &process{claim: c, supervisor: s, workspace: w}, nil
}

func checkCmd(cmd provider.Cmd) error {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" || cmd.Args[0][0] == '-' {
		return refuse(provider.ErrInvalid, "a process needs a program, whose name does not begin with -")
	}
	for _, arg := range cmd.Args {
		if strings.ContainsRune(arg, 0) {
			return refuse(provider.ErrInvalid, "an argument holds a zero byte")
		}
	}
	for name, value := range cmd.Env {
		if !isVariable(name) {
			return refuse(provider.ErrInvalid, "%q cannot be the name of a variable", name)
		}
		if strings.ContainsRune(value, 0) {
			return refuse(provider.ErrInvalid, "variable %s holds a zero byte", name)
		}
	}
	return nil
}

// isVariable says whether a shell takes name for a variable's: it hands on no others.
func isVariable(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// workingFolder is the folder that a process starts in.
func workingFolder(w *workspace, dir string) (string, error) {
	if !filepath.IsAbs(dir) {
		if dir != "" && !filepath.IsLocal(dir) {
			return "", refuse(provider.ErrInvalid, "folder %q leads out of the home", dir)
		}
		dir = w.file(homeFolder, dir)
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return "", &provider.Error{Class: provider.ErrInvalid, Err: err}
	}
	return dir, nil
}

const basePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is that of a process.
func environment(w *workspace, own map[string]string) []string {
	env := map[string]string{
		"PATH":   basePath,
		"LANG":   "C.UTF-8",
		"HOME":   w.file(homeFolder),
		"TMPDIR": w.file(tmpFolder),
	}
	maps.Copy(env, w.root.cfg.Env)
	maps.Copy(env, own)
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}

// launch starts the supervisor, records it, and lets it go on.
func launch(w *workspace, c claim, dir string, cmd provider.Cmd) (supervisor, error) {
	files, err := c.openFiles(cmd.Stdin)
	if err != nil {
		return supervisor{}, err
	}
	defer func() { files.close() }()
	var gate [2]int // blocking, for a shell
	if err := syscall.Pipe2(gate[:], syscall.O_CLOEXEC); err != nil {
		return supervisor{}, err
	}
	files[3] = os.NewFile(uintptr(gate[0]), "gate")
	say := os.NewFile(uintptr(gate[1]), "gate")
	defer say.Close()

	attr := &syscall.ProcAttr{Dir: dir, Env: environment(w, cmd.Env)}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	c.leaf = w.Groups.makeLeaf(filepath.Base(c.dir))
	child, err := fork(cmd.Args, attr, c.leaf, w.Groups.Unified)
	if err != nil {
		return supervisor{}, err
	}
	s, err := admit(w, c, child)
	if err == nil {
		_, err = say.WriteString("go\n")
	}
	if err != nil { // it has started nothing, and shall not
		syscall.Kill(child.pid, syscall.SIGKILL)
		reap(child.pid, 0)
		if child.pidfd >= 0 {
			syscall.Close(child.pidfd)
		}
		return supervisor{}, err
	}
	w.root.watcher.adopt(c.dir, s, child)
	return s, nil
}

// child is a supervisor that this process has started.
type child struct {
	pid, pidfd int  // pidfd is -1 before Linux 5.2
	grouped    bool // it was started in its leaf
}

// fork starts a supervisor as the leader of a session of its own.
func fork(args []string, attr *syscall.ProcAttr, leaf string, unified bool) (child, error) {
	c := child{pidfd: -1}
	attr.Sys = &syscall.SysProcAttr{Setsid: true, PidFD: &c.pidfd}
	if leaf != "" && unified {
		if group, err := os.Open(leaf); err == nil {
			defer group.Close()
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
		}
	}
	argv := append([]string{"sh", "-c", supervisorScript, "freshet"}, args...)
	pid, _, err := syscall.StartProcess(shell, argv, attr)
	switch err {
	case nil, syscall.EAGAIN, syscall.ENOMEM, syscall.E2BIG:
	default: // before Linux 5.7 no process starts in a group
		attr.Sys.UseCgroupFD = false
		pid, _, err = syscall.StartProcess(shell, argv, attr)
	}
	c.pid, c.grouped = pid, attr.Sys.UseCgroupFD
	return c, err
}

// admit puts a supervisor under the limits of the workspace and records it.
func admit(w *workspace, c claim, started child) (supervisor, error) {
	stat, err := readProc(started.pid)
	if err != nil {
		return supervisor{}, err
	}
	if c.leaf != "" && !started.grouped && writeGroup(c.leaf, "cgroup.procs", strconv.Itoa(started.pid)) != nil {
		syscall.Rmdir(c.leaf) // its process will be found by its session
	}
	if err := w.Groups.join(started.pid); err != nil {
		return supervisor{}, err
	}
	if w.Resources.MemoryMB > 0 && !w.Groups.limits("memory") {
		if err := limitData(started.pid, uint64(w.Resources.MemoryMB)<<20); err != nil {
			return supervisor{}, err
		}
	}
	s := supervisor{pid: started.pid, started: stat.started, boot: w.root.boot, oomKills: w.Groups.oomKills()}
	return s, c.record(s)
}

// limitData limits what each process may allocate, where no control group limits all of them together.
func limitData(pid int, bytes uint64) error {
	limit := syscall.Rlimit{Cur: bytes, Max: bytes}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_DATA, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
