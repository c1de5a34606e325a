// Package traces sends OpenTelemetry traces by OTLP over HTTP, where an endpoint
// is configured: by an argument, or by the standard environment variables
// OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. Elsewhere
// nothing is made and nothing is sent: a provider that does nothing takes the
// place.
//
// A run of the service is a trace. The agent that takes its backup gets the
// trace with the request ([Inject], [Extract]), so that the phases of the backup
// ([Stages]) are in it.
package traces

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
)

// Options of Start.
type Options struct {
	// Endpoint is the URL of the collector, such as http://collector:4318; without
	// a path, /v1/traces. "": as the environment says.
	Endpoint string
	Version  string // of walkeep
	Log      *zap.Logger
	// Attributes are of everything that this process sends.
	Attributes []attribute.KeyValue
}

// Provider makes tracers. Close sends what is left.
type Provider struct {
	trace.TracerProvider
	// On: spans are sent somewhere.
	On    bool
	close func(context.Context) error
}

// Name is the name of our tracer.
const Name = "github.com/walkeep/walkeep"

// Tracer is ours. A nil provider has one that does nothing.
func (p *Provider) Tracer() trace.Tracer {
	if p == nil {
		return noop.Tracer{}
	}
	return p.TracerProvider.Tracer(Name)
}

// Close sends what is left, as long as ctx lasts.
func (p *Provider) Close(ctx context.Context) error {
	if p == nil || p.close == nil {
		return nil
	}
	return p.close(ctx)
}

// Start begins to send, in the background. Nothing is asked of the collector yet.
func Start(ctx context.Context, o Options) (*Provider, error) {
	if !configured(o.Endpoint) {
		return &Provider{TracerProvider: noop.NewTracerProvider()}, nil
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	var to []otlptracehttp.Option
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("traces to %q: expected a URL", o.Endpoint)
		}
		if strings.Trim(u.Path, "/") == "" {
			u.Path = "/v1/traces"
		}
		to = append(to, otlptracehttp.WithEndpointURL(u.String()))
	}
	exporter, err := otlptracehttp.New(ctx, to...)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	about := append([]attribute.KeyValue{
		attribute.String("service.name", "walkeep"), attribute.String("service.version", o.Version),
	}, o.Attributes...)
	res, err := resource.New(ctx, resource.WithAttributes(about...), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("send traces: describe this process: %w", err)
	}
	p := sdk.NewTracerProvider(sdk.WithBatcher(logged{exporter, o.Log}), sdk.WithResource(res))
	return &Provider{TracerProvider: p, On: true, close: p.Shutdown}, nil
}

// configured reports whether traces are wanted. The last two variables are the
// standard's, too.
func configured(endpoint string) bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return endpoint != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// logged keeps what goes wrong out of the library's global handler.
type logged struct {
	sdk.SpanExporter
	log *zap.Logger
}

// ExportSpans never fails: nothing depends on traces.
func (l logged) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := l.SpanExporter.ExportSpans(ctx, spans); err != nil {
		l.log.Warn("traces are not sent", zap.Int("spans", len(spans)), zap.Error(err))
	}
	return nil
}

// Inject puts the trace of ctx, if there is one, into the header of a request.
func Inject(ctx context.Context, h http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// Extract is ctx within the trace that a request's header names, if it does.
func Extract(ctx context.Context, h http.Header) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
}

// Handler makes a span of each request, but for those of probes and of
// Prometheus. Where nothing is sent it is next itself.
func (p *Provider) Handler(next http.Handler) http.Handler {
	if p == nil || !p.On {
		return next
	}
	return otelhttp.NewHandler(next, "http",
		otelhttp.WithTracerProvider(p.TracerProvider), otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithFilter(func(r *http.Request) bool {
			return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && r.URL.Path != "/metrics"
		}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + place(r.URL.Path) }))
}

// place is a path without the names in it, which are many.
func place(path string) string {
	parts := strings.Split(path, "/")
	for i := 1; i < len(parts); i++ {
		switch parts[i-1] {
		case "runs", "repos", "backups":
			parts[i] = "{" + strings.TrimSuffix(parts[i-1], "s") + "}"
		}
	}
	return strings.Join(parts, "/")
}
