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
	l.Logger = openLog(c, &l.level)
	return l
}

func openLog(c *config.Configuration, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if c.Logging.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// openClientLog has what client-go says by itself, and where nobody passes it a logger,
// come in the same form: who reads JSON reads all of it. Its details are nobody's here.
// The log is one for the process.
func openClientLog(c *config.Configuration) { klog.SetSlogLogger(openLog(c, slog.LevelInfo)) }

// setVerbosity sets the level: from 2 on, every commit is logged.
func (l *logger) setVerbosity(v int) {
	l.level.Set(slog.LevelInfo)
	if v >= 2 {
		l.level.Set(slog.LevelDebug)
	}
}
