package fakeprovider

import "io/fs"

// Symlink makes a symbolic link, which a Main cannot.
func Symlink(p *Process, target, name string) error {
	f := &p.p.w.files
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes == nil {
		f.nodes = make(map[string]node)
	}
	return tree{nodes: f.nodes}.put(p.path(name), node{mode: fs.ModeSymlink | 0o777, link: target})
}
