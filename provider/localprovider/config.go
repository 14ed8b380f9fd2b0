package localprovider

// Config says where a Provider keeps its workspaces and what it gives them. The zero value works.
type Config struct {
	// Dir is the root folder; it is made when it is missing. It must be on a local file system, belong to the user of
	// this process and be writable by nobody else. All processes whose Dir is the same folder see the same workspaces.
	// "": freshet-<uid> in os.TempDir(), which suits trials: a cleaner of that folder may take away old files.
	Dir string

	// Images is the folder that Spec.Image is relative to; an image cannot lead out of it.
	// "": Spec.Image is the absolute path of a folder.
	Images string

	// Env is added to the environment of every process, before Cmd.Env.
	Env map[string]string

	// Cgroup is the control group below which the groups of the workspaces are made, as a path within the hierarchy,
	// e.g. "/system.slice/app.service". "": the one of this process. "-": none are made.
	Cgroup string

	// Processes is how many processes and threads a workspace may have at once, where control groups can limit it;
	// the supervisors count. 0: no limit.
	Processes int

	// MaxUploadBytes and MaxUploadFiles bound what one Upload may unpack; more is provider.ErrInvalid. Folders and links
	// count as files. 0: 2 GiB and 100 000; negative: no limit.
	MaxUploadBytes int64
	MaxUploadFiles int
}

const (
	defaultUploadBytes = 2 << 30
	defaultUploadFiles = 100_000
)
