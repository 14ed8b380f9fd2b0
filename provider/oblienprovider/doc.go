// Package oblienprovider makes workspaces at Oblien: microVMs behind an HTTP API. It needs the standard library alone.
//
//	p := oblienprovider.New(oblienprovider.Config{
//		ClientID:     os.Getenv("OBLIEN_CLIENT_ID"),
//		ClientSecret: os.Getenv("OBLIEN_CLIENT_SECRET"),
//		Namespace:    "agents",
//	})
//
// # Images
//
// Spec.Image is a container image reference, such as "oblien/ubuntu:24.04". It needs a POSIX shell, tail, mkfifo, ln and
// sleep, which all but the smallest images have, and Linux below: processes are found in /proc.
//
// # Ownership
//
// The slug of a workspace is made of owner and token, its name of agent and spec, and all are written to its metadata for
// people and other programs to read; a workspace whose slug is not of that form is never touched. With a Namespace the
// credentials should be scoped to it: an account's key can create there, but may not find what it created by its id.
//
// # Processes
//
// Oblien's exec call knows no folder, no environment and no name, and its record of a task ends some time after the task.
// So each process runs under a small supervisor in the workspace, a shell script, which keeps its output and its exit
// status in files below .freshet in the home folder. They are there for whoever asks, from any offset, also when the host
// process died meanwhile; a hard link to the name makes sure that a name starts once. Arguments, environment and standard
// input arrive in files that others cannot read and that are removed when the process has read them: none of it is in a
// command line or in Oblien's list of tasks. A program that exits with 128+n, the shell's word for signal n, is taken to
// have been ended by that signal. A process that puts itself into a session of its own and loses its parent is out of
// Signal's reach, as a daemon is.
//
// # What it is not
//
// It is no Snapshotter: a snapshot of Oblien's stays with its workspace, there is only the latest one, and no call boots a
// new workspace from it. It is used for the pause of kind Hibernated. It is no Watcher either: Oblien tells of events by
// webhook alone, and of no start or pause.
//
// # The dead man's switch
//
// Every workspace is temporary, with a time-out after which Oblien removes it. KeepAlive puts it off. It is set again, and
// read back, at the first KeepAlive.
//
// Package sim, below obliensim, is a server that speaks Oblien's side of this over loopback, for tests.
package oblienprovider
