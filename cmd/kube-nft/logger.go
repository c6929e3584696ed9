// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"

	"k8s.io/klog/v2"

	"github.com/kube-nft/kube-nft/controller/config"
)

// logger is the log of a process. Its level may change.
type logger struct {
	*slog.Logger
	level slog.LevelVar
}

// newLogger opens the log that a configuration asks for, on standard error.
func newLogger(c *config.Configuration) *logger {
	l := &logger{}
	l.setVerbosity(int(c.Logging.Verbosity))
	open := func(level slog.Leveler) *slog.Logger {
		opts := &slog.HandlerOptions{Level: level}
		if c.Logging.Format == "json" {
			return slog.New(slog.NewJSONHandler(os.Stderr, opts))
		}
		return slog.New(slog.NewTextHandler(os.Stderr, opts))
	}
	l.Logger = open(&l.level)
	// What client-go says by itself, and where nobody passes it a logger, comes in the
	// same form: who reads JSON reads all of it. Its details are nobody's here.
	klog.SetSlogLogger(open(slog.LevelInfo))
	return l
}

// setVerbosity sets the level: from 2 on, every commit is logged.
func (l *logger) setVerbosity(v int) {
	l.level.Set(slog.LevelInfo)
	if v >= 2 {
		l.level.Set(slog.LevelDebug)
	}
}
