// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/spf13/pflag"
)

// profiles are files that profiles are written to, named and made like those of go
// test; empty is none.
type profiles struct{ cpu, mem string }

func (p *profiles) addFlags(f *pflag.FlagSet) {
	f.StringVar(&p.cpu, "cpuprofile", "", "write a CPU profile to this file, for go tool pprof")
	f.StringVar(&p.mem, "memprofile", "", "write a profile of all allocations to this file")
}

// during runs f and writes what it did, also if it fails.
func (p *profiles) during(f func() error) (err error) {
	if p.mem != "" {
		out, failed := os.Create(p.mem)
		if failed != nil {
			return failed
		}
		defer func() {
			runtime.GC() // what is live is told as of the last collection
			err = errors.Join(err, closeWith(out, pprof.Lookup("allocs").WriteTo(out, 0)))
		}()
	}
	if p.cpu == "" {
		return f()
	}
	out, err := os.Create(p.cpu)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return closeWith(out, err)
	}
	err = f()
	pprof.StopCPUProfile()
	return closeWith(out, err)
}

// closeWith adds what closing says to an error.
func closeWith(c io.Closer, err error) error { return errors.Join(err, c.Close()) }
