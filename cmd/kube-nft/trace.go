// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/nft/trace"
)

// traceOptions are the flags of trace.
type traceOptions struct {
	length  time.Duration
	packets int
	rate    uint32
	all     bool
	output  string
}

func traceCommand() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace [SRC] [DST[:PORT][/PROTO]] | trace NAMESPACE/SERVICE[:PORT]",
		Short: "Follow real packets through this host's chains, and name the Service and endpoint of each",
		Example: `  kube-nft trace default/web
  kube-nft trace 10.96.0.10:53/udp --for 30s
  kube-nft trace 10.244.1.7 any:443/tcp --packets 3
  kube-nft trace 10.244.1.0/24 10.96.0.0/16 -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 2 {
				return fmt.Errorf("%d arguments, at most a source and a destination; %w", len(args), errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return tracePackets(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args, o)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&o.length, "for", 10*time.Second, "how long to follow packets")
	flags.IntVar(&o.packets, "packets", 10, "end after so many packets; 0 is no limit")
	flags.Uint32Var(&o.rate, "rate", 10, "follow at most so many packets a second")
	flags.BoolVar(&o.all, "all", false, "follow all packets, and not only those that begin a connection")
	flags.StringVarP(&o.output, "output", "o", "text", "text, or json: one object a line")
	return cmd
}

// check finds what cannot be meant.
func (o *traceOptions) check() error {
	switch {
	case o.output != "text" && o.output != "json":
		return fmt.Errorf("--output %s: text or json; %w", o.output, errUsage)
	case o.length <= 0:
		return fmt.Errorf("--for %v: it must be longer than nothing; %w", o.length, errUsage)
	case o.packets < 0:
		return fmt.Errorf("--packets %d: it cannot be negative; %w", o.packets, errUsage)
	case o.rate == 0:
		return fmt.Errorf("--rate 0 would follow nothing; %w", errUsage)
	}
	return nil
}

// tracePackets follows packets for a while and tells of each on out; what concerns
// the trace itself goes to notes.
func tracePackets(ctx context.Context, out, notes io.Writer, args []string, o traceOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	target, err := parseTraceTarget(args)
	if err != nil {
		return err
	}
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	filter := trace.Filter{All: o.all, Rate: o.rate}
	filter.Matches, err = target.matches(ctx, conn)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return errCannotRead
	case err != nil:
		return err
	}
	tracer, err := kernel.Trace(kernel.Options{}, filter)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return explainPermission(err)
	case err != nil:
		return err
	}
	defer tracer.Close()
	fmt.Fprintf(notes, "following packets %s for %v%s; table %s goes when this ends\n", target, o.length, o.bounds(), trace.OwnTable)
	session := traceSession{tracer: tracer, lookup: newTraceLookup(conn), out: out, json: o.output == "json", limit: o.packets}
	if err := session.run(ctx, time.Now().Add(o.length)); err != nil {
		return err
	}
	session.sumUp(notes)
	return nil
}

func (o *traceOptions) bounds() string {
	if o.packets == 0 {
		return fmt.Sprintf(", at most %d a second", o.rate)
	}
	return fmt.Sprintf(", at most %d of them and %d a second", o.packets, o.rate)
}

// traceSession is a trace under way.
type traceSession struct {
	tracer *kernel.Tracer
	lookup *traceLookup
	out    io.Writer
	json   bool
	limit  int

	gather   trace.Gatherer
	told     int
	lost     bool // some events were
	unjudged int  // how often was heard since packets were judged
}

// maxUnjudged is how often is heard at most before packets are judged: something may
// always be waiting. It is no time, which a process may spend without being run.
const maxUnjudged = 4096

// run follows packets until the end has come, or enough of them have.
func (s *traceSession) run(ctx context.Context, end time.Time) error {
	for ctx.Err() == nil && time.Now().Before(end) && !s.enough() {
		// Where this process was kept from running there is more to hear of a packet that
		// was quiet for long: none is judged before.
		now := time.Now()
		waiting, err := s.tracer.Waiting()
		if err != nil {
			return err
		}
		wake := end
		if !waiting || s.unjudged >= maxUnjudged {
			s.unjudged = 0
			if err := s.tell(s.gather.Ripe(now)); err != nil {
				return err
			}
			if next := s.gather.Next(); !next.IsZero() && next.Before(end) {
				wake = next
			}
			if s.enough() {
				break
			}
		}
		if err := s.hear(ctx, wake); err != nil {
			return err
		}
	}
	if err := s.hearOut(); err != nil {
		return err
	}
	return s.tell(s.gather.Ripe(time.Time{}))
}

// hear waits for events until a time, and takes them.
func (s *traceSession) hear(ctx context.Context, until time.Time) error {
	lost, err := s.tracer.Receive(ctx, until, s.gather.Add)
	s.unjudged++
	s.lost = s.lost || lost
	return err
}

// hearOut takes what waits at the end, so that no packet is judged half heard.
func (s *traceSession) hearOut() error {
	for range maxUnjudged {
		waiting, err := s.tracer.Waiting()
		if err != nil || !waiting || s.enough() {
			return err
		}
		if err := s.hear(context.Background(), time.Now().Add(time.Second)); err != nil {
			return err
		}
	}
	return nil
}

func (s *traceSession) enough() bool { return s.limit > 0 && s.told >= s.limit }

// tell tells the stories of packets.
func (s *traceSession) tell(packets [][]trace.Event) error {
	for _, events := range packets {
		if s.enough() {
			return nil
		}
		p, ok := trace.Tell(events, s.lookup)
		if !ok {
			continue
		}
		p.Hints = traceHints(&p)
		if err := s.print(&p); err != nil {
			return err
		}
		s.told++
	}
	return nil
}

func (s *traceSession) print(p *trace.Packet) error {
	if s.json {
		return json.NewEncoder(s.out).Encode(p)
	}
	if s.told > 0 {
		if _, err := fmt.Fprintln(s.out); err != nil {
			return err
		}
	}
	return p.Format(s.out)
}

// sumUp says what the reader of the stories cannot see in them.
func (s *traceSession) sumUp(notes io.Writer) {
	if s.told == 0 {
		fmt.Fprintln(notes, "no such packet came by. A connection that is open already sends none that begins one: see --all")
	}
	if s.lost {
		fmt.Fprintln(notes, "the kernel had no room for some of what it told: a story may lack a part. Try a lower --rate")
	}
	if s.gather.Full {
		fmt.Fprintln(notes, "more packets were under way than are followed at once: some were left out. Try a lower --rate")
	}
	if s.lookup.err != nil {
		fmt.Fprintln(notes, "some names could not be looked up:", s.lookup.err)
	}
}
