// Package page is the web page of the service: one page that answers, at three
// in the morning and on a phone, whether all is well, and if not, what is not.
//
// The page is HTML made from the [api.Snapshot] by html/template, with the
// pictures as SVG; it can be read without a script. The script that comes with
// it keeps the page live: it asks for the content of the page again (/page),
// and the answer waits until there is news. So no viewer polls, no viewer waits
// for a repository, and 200 viewers share one rendering of each snapshot.
//
// The page changes nothing. Operators start and cancel runs through the REST
// API, with the token that they type, which the browser keeps for the tab only
// and sends in the Authorization header: another site cannot make a browser
// send it.
//
// Nothing comes from outside the binary, and the content security policy
// forbids it to, as it does scripts and styles inside the HTML: a text from a
// server or a repository that got past the escaping would still not run.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
)

// Options are what the page needs.
type Options struct {
	Service api.Service
	// Viewer reports whether the client may see the page; nil: everybody may.
	Viewer func(*http.Request) bool
	// Runbook is the URL that the codes of problems are chapters of. Default:
	// docs/runbook.md of the project.
	Runbook string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Wait bounds how long an answer waits for news, below the timeouts of
	// servers and proxies. Default 20s.
	Wait time.Duration
	// Log; nil logs nothing.
	Log *zap.Logger
}

// DefaultRunbook is where the chapters are.
const DefaultRunbook = "https://github.com/walkeep/walkeep/blob/main/docs/runbook.md"

// fresh is how long a rendering of an unchanged snapshot is used again: ages
// and the right end of the pictures move on.
const fresh = 15 * time.Second

//go:embed assets
var assets embed.FS

type handler struct {
	Options
	mux       *http.ServeMux
	templates *template.Template
	styleURL  string
	scriptURL string
	started   string // makes tags differ between processes

	mu sync.Mutex // guards the following
	// rendered are the renderings of the snapshot below, by span.
	rendered map[span]*rendering
	of       *api.Snapshot
	number   int
}

// rendering is the content of the page for one snapshot and span.
type rendering struct {
	at         time.Time
	tag        string
	html, gzip []byte
}

// New serves the page at / and what it needs below /page.
func New(o Options) (http.Handler, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == 0 {
		o.Wait = 20 * time.Second
	}
	if o.Runbook == "" {
		o.Runbook = DefaultRunbook
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	t, err := template.New("page").ParseFS(assets, "assets/*.html")
	if err != nil {
		return nil, fmt.Errorf("parse templates of the page: %w", err)
	}
	h := &handler{Options: o, mux: http.NewServeMux(), templates: t}
	h.started = strconv.FormatInt(o.Now().UnixNano(), 36)
	if h.styleURL, err = h.asset("style.css", "text/css; charset=utf-8"); err != nil {
		return nil, err
	}
	if h.scriptURL, err = h.asset("script.js", "text/javascript; charset=utf-8"); err != nil {
		return nil, err
	}
	if _, err = h.asset("icon.svg", "image/svg+xml"); err != nil {
		return nil, err
	}
	h.mux.HandleFunc("GET /{$}", h.whole)
	h.mux.HandleFunc("GET /page", h.content)
	return h, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.mux.ServeHTTP(w, r)
}

// asset serves a file under a name that has its digest, so that browsers keep
// it for good, and returns that name.
func (h *handler) asset(name, contentType string) (string, error) {
	data, err := fs.ReadFile(assets, "assets/"+name)
	if err != nil {
		return "", fmt.Errorf("read asset of the page: %w", err)
	}
	sum := sha256.Sum256(data)
	tag := hex.EncodeToString(sum[:6])
	packed := pack(data)
	h.mux.HandleFunc("GET /page/"+name, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Query().Get("v") == tag {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		send(w, r, tag, data, packed)
	})
	return "/page/" + name + "?v=" + tag, nil
}

// frame is what stands around the content.
type frame struct {
	Cluster         string
	Style, Script   string
	Content         template.HTML
	Tag             string
	SignIn          bool
	ReloadAfterSecs int
}

// whole answers with the page. Who may not see it gets a page that asks for a
// token and says nothing else, not even the name of the cluster.
func (h *handler) whole(w http.ResponseWriter, r *http.Request) {
	f := frame{Style: h.styleURL, Script: h.scriptURL}
	status := http.StatusOK
	if h.allowed(r) {
		snapshot := h.Service.Snapshot()
		c, err := h.render(snapshot, spanOf(r))
		if err != nil {
			h.failed(w, err)
			return
		}
		f.Cluster, f.Tag = snapshot.Cluster, c.tag
		f.Content = template.HTML(c.html) // made by our own templates
	} else {
		f.SignIn = true
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Bearer realm="walkeep"`)
	}
	var b bytes.Buffer
	if err := h.templates.ExecuteTemplate(&b, "frame.html", f); err != nil {
		h.failed(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that left needs no answer
}

// content answers with what stands inside the page. If the client has it
// already (If-None-Match) the answer waits for a change, and is 304 if there is
// none for a while.
func (h *handler) content(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !h.allowed(r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="walkeep"`)
		http.Error(w, "a token of a viewer or operator is needed", http.StatusUnauthorized)
		return
	}
	timeout := time.NewTimer(h.Wait)
	defer timeout.Stop()
	for {
		changed := h.Service.Changed() // before the snapshot, so that nothing is missed
		snapshot := h.Service.Snapshot()
		c, err := h.render(snapshot, spanOf(r))
		if err != nil {
			h.failed(w, err)
			return
		}
		if r.Header.Get("If-None-Match") != strconv.Quote(c.tag) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Walkeep-Cluster", snapshot.Cluster)
			send(w, r, c.tag, c.html, c.gzip)
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			w.WriteHeader(http.StatusNotModified)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (h *handler) allowed(r *http.Request) bool { return h.Viewer == nil || h.Viewer(r) }

func (h *handler) failed(w http.ResponseWriter, err error) {
	h.Log.Error("page cannot be made", zap.Error(err))
	http.Error(w, "the page cannot be made; the log of the service says why", http.StatusInternalServerError)
}

// render makes the content for a snapshot, or takes it from the last time.
func (h *handler) render(s *api.Snapshot, of span) (*rendering, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.Now()
	if h.of != s {
		h.of, h.rendered = s, map[span]*rendering{}
	}
	if c := h.rendered[of]; c != nil && now.Sub(c.at) < fresh {
		return c, nil
	}
	var b bytes.Buffer
	b.Grow(256 << 10)
	if err := h.templates.ExecuteTemplate(&b, "content.html", newView(s, of, now, h.Runbook)); err != nil {
		return nil, fmt.Errorf("render page: %w", err)
	}
	h.number++
	c := &rendering{at: now, tag: h.started + "-" + strconv.Itoa(h.number), html: b.Bytes(), gzip: pack(b.Bytes())}
	h.rendered[of] = c
	return c, nil
}

// pack compresses for clients that take gzip.
func pack(data []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil
	}
	_, err = z.Write(data)
	if err != nil || z.Close() != nil {
		return nil
	}
	return b.Bytes()
}

// send answers with data under a tag, or with 304 to who has it.
func send(w http.ResponseWriter, r *http.Request, tag string, data, packed []byte) {
	tag = strconv.Quote(tag)
	w.Header().Set("ETag", tag)
	w.Header().Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if packed != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		data = packed
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // a client that left needs no answer
}
