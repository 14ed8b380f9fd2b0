// Package localprovider runs agents as processes of this machine. It isolates files and resources, not trust: a workspace is
// a folder and the processes that are started in it, and these can do what the user of the host process can, such as
// read his files and tamper with other workspaces. Run nothing in it that you would not run on this machine yourself.
//
// Processes outlive the host process, unless the service manager ends them with it. systemd does so by default: when a
// service stops it kills all that is in the service's control group (KillMode=control-group), and the agents are. Set
// KillMode=process in the unit, or start the host process with systemd-run --scope, so that a deploy leaves them running.
// A container engine ends everything in the container, and nothing in here changes that.
//
// A control group of v2 that holds processes cannot limit groups below it, and the one of a service holds the host
// process. So that limits are kept, set Delegate=yes and DelegateSubgroup=host in the unit, and Config.Cgroup to the
// service's group, e.g. "/system.slice/app.service".
//
// It needs Linux; elsewhere every call returns provider.ErrUnsupported. Constructing needs nothing; using it needs /proc,
// a POSIX shell at /bin/sh and a root folder on a local file system.
//
// # The root folder
//
// All state is in the root folder, so that any number of host processes may use it at once, and the next one finds what
// the last one left. They must see the same processes: one machine, one pid namespace.
//
//	id                        random, made once; the Scope is made of it and of the machine's id, so that a copy of the
//	                          root folder must not be used beside it
//	names/local-1 …           owners' names; the bearer of a name holds the file's lock
//	watchdog                  locked by the watchdog while there is one (see KeepAlive); says which process it is
//	snapshots/<id>/           copies of homes
//	staging/                  half-made things, each locked by its maker; unlocked ones are removed by the next look
//	trash/<token>/            workspaces that are being deleted
//	work/<token>/             a workspace; its token is its id
//		workspace.json        labels, spec, resources and control groups
//		home/                 HOME, where processes start
//		tmp/                  TMPDIR
//		paused                there while it is paused
//		expires               set by KeepAlive
//		proc/<name>/          a process: locked while it is started
//			start             its supervisor: pid, start time and boot
//			stdout stderr     its output
//			exit              how it ended
//
// A workspace is made in staging and then renamed to its place, and renamed to trash before it is deleted. So at any
// moment at which a host process may die a step has happened or not, and the next Create, Get or List of any process
// goes on with it. The record is on the disk when Create returns; of processes nothing needs to survive a fall of the
// machine, which ends them.
//
// # Processes
//
// Each process has a supervisor, a small script run by /bin/sh, that waits for it and records its end in the file exit.
// The supervisor leads a session of its own. It is recorded, with pid, start time and the id of the machine's boot, before
// it is told to go on; what these three name is never another process, however often the pid is used again. If the host
// process dies before that, the supervisor starts nothing, and the name is free again; afterwards the name is used for
// ever. When the supervisor itself is killed, nobody knows the end of its process: what is left of it is killed too,
// and Wait returns ErrLost. So does Wait for what ran before the machine was started anew.
//
// A shell reports a process that was ended by a signal with 128 more than the signal's number. So an exit with the code
// 143 looks like SIGTERM, and Exit.Signal says so; Exit.Code holds the code.
//
// Output and input go through files, so no process is held up by a slow reader. Output is kept until the workspace is
// deleted. The input's file has no name from the moment that it is written, and the environment is given in no file
// and no argument: both are gone with the process.
//
// The host process that started a supervisor reaps it. What a process leaves behind when it ends belongs to process 1,
// as always; if that is the host process itself, in a container, start the container with an init process (docker run
// --init).
//
// # Images, snapshots and files
//
// An image names a folder whose content is copied into the home; "" is an empty home. Copies share nothing with what they
// were made of. Symbolic links are copied as links and never followed: a relative one that leads out of the folder is
// left out, an absolute one is kept, since it means the same everywhere. A snapshot is the copy of a home.
//
// # Resources
//
// Where the host process may make control groups, of v1 or v2, each workspace has its own below that of the host
// process or Config.Cgroup, in freshet-<scope>/<token>, with one below it for each process. A group is made only for what
// is limited, since to move a process into a group of v1 takes some milliseconds.
//
//	MemoryMB  of all processes together; Exit.OOM tells when the system ended one for want of it, and the process failed
//	CPU       share of all cores, as a quota
//	DiskMB    not limited; Usage tells what is used
//
// Without control groups, which is the rule for users other than root and in containers, everything else still works:
//
//   - MemoryMB limits the data of each process by itself (RLIMIT_DATA). CPU is not limited.
//   - What descends from a process is found by its session and its parents, and in a workspace also by HOME and TMPDIR
//     in the environment. A descendant that begins a session of its own, loses its parents and changes both variables
//     is missed.
//   - Pause sends SIGSTOP and Resume SIGCONT, which the processes' parents can notice.
//   - Usage adds up what it finds in /proc.
package localprovider
