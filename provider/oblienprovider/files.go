package oblienprovider

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

// Upload sends the archive to a folder beside the home's own and moves it into place when all of it is there. Links of
// the archive must stay within it.
func (p *Provider) Upload(ctx context.Context, id, dir string, archive io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := below("upload", dir)
	if err != nil {
		return err
	}
	stage := strings.ToLower(rand.Text())
	parcel, err := pack(ctx, archive, rootFolder+"/in/"+stage+"/f")
	if err != nil {
		return err
	}
	defer parcel.close()
	err = p.arrive(ctx, id)
	sent := false
	if err == nil {
		sent = true
		err = p.upload(ctx, "upload", id, parcel)
	}
	if err == nil {
		var code int
		sent = false
		_, code, err = p.scriptFor(ctx, id, command{op: "upload", effect: true, limit: powerTime}, mergeScript, stage, dir, p.doorways.home(id))
		switch {
		case err != nil:
		case code == codeRefused:
			return fail("upload", provider.ErrInvalid, "a link, or a thing of another kind, is in the way")
		case code != 0:
			return fail("upload", provider.ErrUnavailable, "the workspace's shell answers %d: the disk may be full", code)
		}
	}
	if err != nil && sent {
		_, _, _ = p.script(ctx, id, "upload", dropScript, stage)
	}
	if err != nil {
		return p.explain(ctx, "upload", id, err)
	}
	return nil
}

// Download asks for a file or folder. The stream is closed by the caller.
func (p *Provider) Download(ctx context.Context, id, name string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	clean, err := below("download", name)
	if err != nil {
		return nil, err
	}
	err = p.arrive(ctx, id)
	var code int
	if err == nil {
		_, code, err = p.script(ctx, id, "download", locateScript, clean, p.doorways.home(id))
	}
	switch {
	case err != nil:
		return nil, p.explain(ctx, "download", id, err)
	case code == codeNotFound:
		return nil, fail("download", provider.ErrNotFound, "no such file")
	case code == codeRefused:
		return nil, fail("download", provider.ErrInvalid, "a link leads there")
	case code != 0:
		return nil, unexpected("download", code)
	}
	whole := path.Join(p.doorways.home(id), clean)
	body := map[string]any{"paths": []string{whole}}
	if clean == "." {
		body["exclude_patterns"] = []string{rootFolder}
	}
	streaming, cancel := context.WithTimeout(ctx, powerTime)
	r := request{op: "download", method: http.MethodPost, path: "/files/transfer/download", body: body}
	resp, err := p.enter(streaming, ctx, id, r)
	if err != nil {
		cancel()
		return nil, p.explain(ctx, "download", id, err)
	}
	d := &download{body: resp.Body, cancel: cancel, whole: strings.TrimPrefix(whole, "/"), base: path.Base(whole)}
	d.lost = func(err error) error { return lost(ctx, r, false, err) }
	return d, nil
}

// below checks a path that is to lie in the home folder.
func below(op, name string) (string, error) {
	clean := path.Clean(name)
	if outside(clean) || strings.ContainsRune(name, 0) {
		return "", fail(op, provider.ErrInvalid, "the path leads outside")
	}
	return clean, nil
}

// download is the stream of an archive, unpacked and packed again while it is read: the names that Oblien gives are
// relative to the root or to the parent of what was asked for, which is not said anywhere.
type download struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	lost   func(error) error
	whole  string // the path of what was asked for, without the slash in front
	base   string

	gz     *gzip.Reader
	from   *tar.Reader
	to     *tar.Writer
	packed bytes.Buffer
	cut    string // taken off each name
	begun  bool
	err    error // io.EOF: all is packed
}

// Read implements io.Reader.
func (d *download) Read(b []byte) (int, error) {
	for d.packed.Len() == 0 && d.err == nil {
		d.err = d.more()
	}
	if d.packed.Len() > 0 {
		return d.packed.Read(b)
	}
	return 0, d.err
}

// more packs some of the archive.
func (d *download) more() error {
	if d.from == nil {
		gz, err := gzip.NewReader(d.body)
		if err != nil {
			return d.lost(err)
		}
		d.gz, d.from, d.to = gz, tar.NewReader(gz), tar.NewWriter(&d.packed)
	}
	if _, err := io.CopyN(d.to, d.from, 64<<10); err == nil {
		return nil
	} else if err != io.EOF {
		return d.lost(err)
	}
	h, err := d.from.Next()
	if err == io.EOF {
		if err := d.to.Close(); err != nil {
			return d.lost(err)
		}
		return io.EOF
	}
	if err != nil {
		return d.lost(err)
	}
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	if !d.begun {
		d.begun = true
		if parent := strings.TrimSuffix(d.whole, d.base); name == d.whole || strings.HasPrefix(name, d.whole+"/") {
			d.cut = parent
		}
	}
	out := tar.Header{Typeflag: h.Typeflag, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size, ModTime: h.ModTime}
	out.Name = strings.TrimPrefix(name, d.cut)
	if out.Name != d.base && !strings.HasPrefix(out.Name, d.base+"/") {
		return d.lost(errors.New("the archive holds something else than what was asked for"))
	}
	switch h.Typeflag {
	case tar.TypeDir:
		out.Name += "/"
	case tar.TypeLink:
		out.Linkname = strings.TrimPrefix(path.Clean(strings.TrimLeft(h.Linkname, "/")), d.cut)
	}
	return d.to.WriteHeader(&out)
}

// Close ends the stream; it need not have been read to its end.
func (d *download) Close() error {
	d.cancel()
	return d.body.Close()
}
