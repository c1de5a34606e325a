// Package tracestest has a collector of OpenTelemetry traces for tests.
package tracestest

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector takes what is sent by OTLP over HTTP, as protobuf.
type Collector struct {
	URL string

	mu    sync.Mutex // guards spans
	spans []*v1.Span
}

// New starts one that ends with the test.
func New(t testing.TB) *Collector {
	c := &Collector{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, &req) != nil {
			http.Error(w, "no traces", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
		b, _ = proto.Marshal(&collector.ExportTraceServiceResponse{})
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	c.URL = s.URL
	return c
}

// Span is one span.
type Span struct {
	Name, Trace string
	Error       string
	Attributes  map[string]string // those that are text
}

// Spans are all that came, in no order.
func (c *Collector) Spans() (all []Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		one := Span{Name: s.Name, Trace: hex.EncodeToString(s.TraceId), Error: s.Status.GetMessage(), Attributes: map[string]string{}}
		for _, a := range s.Attributes {
			one.Attributes[a.Key] = a.Value.GetStringValue()
		}
		all = append(all, one)
	}
	return all
}

// Named are those of a name.
func (c *Collector) Named(name string) (all []Span) {
	for _, s := range c.Spans() {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}
