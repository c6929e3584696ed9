// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// userHZ is the unit of processor time in /proc, the same on all of Go's machines.
const userHZ = 100

// cpuTime is the processor time of a process and of all its children, those that have
// ended too.
func cpuTime(pid int) (sum time.Duration) {
	for _, p := range tree(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue // it has just ended; its parent counts it from now on
		}
		const tick = time.Second / userHZ
		own, ended := statTicks(text)
		sum += max(threadTime(p), time.Duration(own)*tick) + time.Duration(ended)*tick
	}
	return sum
}

// threadTime is the time that the threads of a process have run. It is exact, where
// other files count in hundredths of a second, but forgets threads that have ended.
func threadTime(pid int) (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is a good one
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		run, _, _ := strings.Cut(string(text), " ")
		ns, _ := strconv.ParseInt(run, 10, 64) // the kernel writes numbers
		sum += time.Duration(ns)
	}
	return sum
}

// statTicks reads the times in /proc/PID/stat: its own, which are utime and stime, and
// those of children that have ended, cutime and cstime.
func statTicks(text []byte) (own, ended int) {
	after := bytes.LastIndexByte(text, ')') // the name before it may hold anything
	fields := strings.Fields(string(text[after+1:]))
	if len(fields) < 15 {
		return 0, 0
	}
	var times [4]int
	for i := range times {
		times[i], _ = strconv.Atoi(fields[11+i]) // the kernel writes numbers
	}
	return times[0] + times[1], times[2] + times[3]
}

// tree lists a process and its descendants that live.
func tree(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i])) // the pattern is a good one
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // the thread has ended
			}
			for word := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(word); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// resident is the memory that a process and its children have now, in bytes.
func resident(pid int) (sum int64) {
	for _, p := range tree(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p))
		if err != nil {
			continue
		}
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64) // the kernel writes numbers
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}

// highWater is the most memory that the process alone has had.
func highWater(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return kilobytes(string(text), "VmHWM") << 10
}

// kilobytes reads a line such as "VmHWM:  123 kB".
func kilobytes(text, name string) int64 {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n
		}
	}
	return 0
}

// kernelMemory is what the kernel has allocated for itself and does not give back by
// itself, in bytes: its tables are in it, and everybody else's.
func kernelMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var sum int64
	for _, name := range []string{"SUnreclaim", "VmallocUsed", "Percpu"} {
		sum += kilobytes(string(text), name)
	}
	return sum << 10
}

// sampler follows the memory of a process and its children.
type sampler struct {
	stop chan struct{}
	done sync.WaitGroup
	peak int64
}

// sampleEvery is how often: a child of nft's lives for a tenth of a second or more when
// it is large.
const sampleEvery = 10 * time.Millisecond

func sampleMemory(pid int) *sampler {
	s := &sampler{stop: make(chan struct{})}
	s.done.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			s.peak = max(s.peak, resident(pid))
			select {
			case <-tick.C:
			case <-s.stop:
				s.peak = max(s.peak, highWater(pid))
				return
			}
		}
	})
	return s
}

// end returns the most that there was. The process still runs.
func (s *sampler) end() int64 {
	close(s.stop)
	s.done.Wait()
	return s.peak
}
