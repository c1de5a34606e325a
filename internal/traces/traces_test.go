package traces

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/internal/traces/tracestest"
)

type silent struct{ stages []string }

func (s *silent) Stage(what string) { s.stages = append(s.stages, what) }
func (*silent) Total(int64)         {}
func (*silent) Add(int64)           {}

// What is begun arrives at the collector, in one trace, also through a header.
func TestSends(t *testing.T) {
	c := tracestest.New(t)
	p, err := Start(t.Context(), Options{Endpoint: c.URL, Version: "v1"})
	require.NoError(t, err)
	require.True(t, p.On)
	ctx, span := p.Tracer().Start(t.Context(), "run full")
	h := http.Header{}
	Inject(ctx, h)
	there, backup := p.Tracer().Start(Extract(t.Context(), h), "backup")
	inner := &silent{}
	stages := NewStages(there, p.Tracer(), inner)
	for _, what := range []string{"preparing", "copying", "waiting for WAL in repo1: 1 missing", "waiting for WAL in repo1: 2 missing"} {
		stages.Stage(what)
	}
	stages.End()
	stages.End()
	require.Len(t, inner.stages, 4)
	End(backup, errors.New("no room"))
	End(span, nil)
	served := p.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, path := range []string{"/healthz", "/metrics", "/v1/repos/repo1/backups/20261122-010000F", "/v1/runs"} {
		served.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	}
	require.NoError(t, p.Close(t.Context()))

	names := map[string]int{}
	for _, s := range c.Spans() {
		names[s.Name]++
	}
	require.Equal(t, map[string]int{
		"run full": 1, "backup": 1, "preparing": 1, "copying": 1, "waiting for WAL in repo1": 1,
		"GET /v1/repos/{repo}/backups/{backup}": 1, "GET /v1/runs": 1,
	}, names)
	run := c.Named("run full")[0]
	for _, name := range []string{"backup", "copying"} {
		require.Equal(t, run.Trace, c.Named(name)[0].Trace, name)
	}
	require.Equal(t, "no room", c.Named("backup")[0].Error)
}

// A collector that is away is nobody's business.
func TestCollectorAway(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	p, err := Start(t.Context(), Options{Endpoint: s.URL})
	require.NoError(t, err)
	_, span := p.Tracer().Start(t.Context(), "x")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = p.Close(ctx) // it may say that it was cut off
	_, err = Start(t.Context(), Options{Endpoint: "nonsense"})
	require.Error(t, err)
}

// Where nothing is configured nothing is made.
func TestOff(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		t.Setenv(name, "")
	}
	for range 2 {
		p, err := Start(t.Context(), Options{})
		require.NoError(t, err)
		require.False(t, p.On)
		h := http.NotFoundHandler()
		require.IsType(t, h, p.Handler(h))
		ctx, span := p.Tracer().Start(t.Context(), "x")
		require.False(t, span.IsRecording())
		header := http.Header{}
		Inject(ctx, header)
		require.Empty(t, header)
		require.NoError(t, p.Close(ctx))
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
		t.Setenv("OTEL_SDK_DISABLED", "true")
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	p, err := Start(t.Context(), Options{})
	require.NoError(t, err)
	require.True(t, p.On)
	var none *Provider
	require.NotNil(t, none.Tracer())
	require.NoError(t, none.Close(t.Context()))
}
