package main

import (
	"os"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// logger is the logger of this run; it writes to standard error.
func (r *root) logger() *zap.Logger {
	if r.log == nil {
		return zap.NewNop()
	}
	return r.log
}

// startLog builds the logger from --log-level and --log-format.
func (r *root) startLog() error {
	level, err := zapcore.ParseLevel(r.logLevel)
	if err != nil || level > zapcore.ErrorLevel {
		return usageErrorf("--log-level %q: expected debug, info, warn or error", r.logLevel)
	}
	format := r.logFormat
	if format == "" {
		format = "json"
		if isTerminal(r.stderr) {
			format = "console"
		}
	}
	encoder, err := newEncoder(format)
	if err != nil {
		return err
	}
	r.log = zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(r.stderr)), level))
	return nil
}

func newEncoder(format string) (zapcore.Encoder, error) {
	c := zap.NewProductionEncoderConfig()
	c.EncodeDuration = zapcore.StringDurationEncoder
	switch strings.ToLower(format) {
	case "json":
		c.TimeKey, c.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
		return zapcore.NewJSONEncoder(c), nil
	case "console":
		c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		c.EncodeLevel = zapcore.CapitalLevelEncoder
		c.ConsoleSeparator = " "
		return zapcore.NewConsoleEncoder(c), nil
	default:
		return nil, usageErrorf("--log-format %q: expected console or json", format)
	}
}

// isTerminal reports whether f is a terminal: progress bars and coloured or
// console output are for people only.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
