package stores

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Fault is what a Proxy does to one request.
type Fault struct {
	// Drop carries the request out and cuts the connection in place of the
	// answer, so that the client cannot know.
	Drop bool
	// Cut ends the connection in the middle of the answer's body.
	Cut bool
	// Status, if not 0, is answered at once with Header and Body; the server
	// never sees the request.
	Status int
	Header map[string]string
	Body   string
	// Hang, if not 0, waits that long before anything else, or until the
	// client gives up.
	Hang time.Duration
}

// Proxy stands between a driver and a server and breaks chosen requests.
type Proxy struct {
	URL string

	target *url.URL
	fault  func(*http.Request) Fault
	client *http.Transport
	server *http.Server
}

// NewProxy passes requests on to the server at target; fault is asked about
// each, possibly from several goroutines, before its body is read. Close it.
func NewProxy(target string, fault func(*http.Request) Fault) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		URL: "http://" + l.Addr().String(), target: u, fault: fault,
		client: &http.Transport{DisableCompression: true},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

// Close ends all connections.
func (p *Proxy) Close() error {
	p.client.CloseIdleConnections()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // wait for no one
	_ = p.server.Shutdown(ctx)
	return p.server.Close()
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.fault(r)
	if f.Hang > 0 {
		select {
		case <-time.After(f.Hang):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Status != 0 {
		_, _ = io.Copy(io.Discard, r.Body)
		for name, value := range f.Header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return
	}
	resp, err := p.client.RoundTrip(p.outgoing(r, f))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	if f.Drop {
		_, _ = io.Copy(io.Discard, resp.Body)
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	if f.Cut {
		_, _ = io.CopyN(w, resp.Body, resp.ContentLength/2)
		panic(http.ErrAbortHandler)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// outgoing is r for the server, with the Host that the client signed.
func (p *Proxy) outgoing(r *http.Request, f Fault) *http.Request {
	ctx := r.Context()
	if f.Drop {
		ctx = context.WithoutCancel(ctx) // carried out, whatever the client does
	}
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host = p.target.Scheme, p.target.Host
	out.RequestURI = ""
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	return out
}
