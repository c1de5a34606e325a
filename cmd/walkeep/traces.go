package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/internal/traces"
)

// tracesEnd bounds the sending of the last traces.
const tracesEnd = 5 * time.Second

// startTraces begins to send traces, if an endpoint is configured.
func (r *root) startTraces(ctx context.Context, cfg *config.Config, program string) error {
	p, err := traces.Start(ctx, traces.Options{
		Endpoint: cfg.Service.Traces, Version: thisVersion().Version, Log: r.logger(),
		Attributes: []attribute.KeyValue{attribute.String("walkeep.cluster", cfg.Cluster), attribute.String("walkeep.program", program)},
	})
	if err != nil {
		return err
	}
	r.traces = p
	r.closers = append(r.closers, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesEnd)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			r.logger().Warn("the last traces are not sent", zap.Error(err))
		}
	})
	return nil
}
