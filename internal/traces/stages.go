package traces

import (
	"context"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Progress is how a backup tells how it goes.
type Progress interface {
	Stage(what string)
	Total(bytes int64)
	Add(bytes int64)
}

// Stages is a Progress that makes a span of each stage, and passes everything on.
type Stages struct {
	Progress
	ctx    context.Context
	tracer trace.Tracer

	mu   sync.Mutex // guards what follows
	name string
	span trace.Span
}

// NewStages makes spans below that of ctx. Call End.
func NewStages(ctx context.Context, t trace.Tracer, p Progress) *Stages {
	return &Stages{Progress: p, ctx: ctx, tracer: t}
}

// Stage ends the span of the stage before, and begins one. What is behind a
// colon changes while the stage lasts.
func (s *Stages) Stage(what string) {
	s.Progress.Stage(what)
	name, _, _ := strings.Cut(what, ":")
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == s.name {
		return
	}
	s.endSpan()
	s.name = name
	_, s.span = s.tracer.Start(s.ctx, name)
}

// End ends the last span.
func (s *Stages) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endSpan()
}

// endSpan is called with mu held.
func (s *Stages) endSpan() {
	if s.span != nil {
		s.span.End()
		s.span, s.name = nil, ""
	}
}

// End ends a span of something that ended with err, nil if well.
func End(span trace.Span, err error, about ...attribute.KeyValue) {
	span.SetAttributes(about...)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
