// SPDX-License-Identifier: Apache-2.0

// Package uml runs a program inside user-mode Linux: a kernel that is a process of the
// host's, with the host's files, and with the IPVS that the host's own kernel lacks.
//
//	host                                     inside
//	Machine.Run ── starts ──> linux ───────> init = the same program, see Init
//	  Job ──> job.json ─────┐                  mounts: the host's root under a layer of
//	                        ├─ Share, hostfs   memory, and Share, which is the host's
//	  exit code <── exit ───┘                  runs the job's command, writes its exit
//	  Output <── console                       code, powers off
//
// Whatever a program inside writes is gone with the machine, but for what it writes to
// Share. It has one processor and no network but its own. Time is the host's.
//
// A system call costs some microseconds there and a page fault more, so times measured
// inside compare with others from the same run only.
//
// The kernel is built from Debian's source by Build, once; Find looks for it and never
// builds.
package uml
