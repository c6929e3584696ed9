// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Format writes the story as a paragraph of lines. The first says what came, the
// last what became of it.
func (p *Packet) Format(w io.Writer) error {
	b := bufio.NewWriter(w)
	from := "from a process of this host"
	if p.In != "" {
		from = "in " + p.In
	}
	fmt.Fprintf(b, "%s  %s %s > %s, %s\n", p.Time.Format("15:04:05.000"), p.Protocol, p.Source, p.Destination, from)
	hook := ""
	line := func(s *Step, text string) {
		at := ""
		if s.Hook != hook {
			at, hook = s.Hook, s.Hook
		}
		fmt.Fprintf(b, "  %-12s %s\n", at, text)
	}
	var passed []string
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Text == accepts {
			passed = append(passed, s.Table+" "+s.Chain)
			if i+1 < len(p.Steps) && p.Steps[i+1].Text == accepts && p.Steps[i+1].Hook == s.Hook {
				continue
			}
			line(s, "accepted by "+strings.Join(passed, ", "))
			passed = passed[:0]
			continue
		}
		line(s, s.Text)
	}
	fmt.Fprintf(b, "  => %s\n", p.ending())
	for _, h := range p.Hints {
		fmt.Fprintf(b, "     %s\n", h)
	}
	return b.Flush()
}

// accepts is the text of a step in which nothing happened.
const accepts = "accept"

// ending says in one line what became of the packet.
func (p *Packet) ending() string {
	switch p.Outcome {
	case Forwarded, Sent, Delivered:
	default:
		return p.Reason
	}
	words := string(p.Outcome)
	switch {
	case p.Endpoint != nil && p.Service != nil:
		words += fmt.Sprintf(" to %s, endpoint of %s", p.Endpoint.Address, p.Service)
	case p.TranslatedTo != nil:
		words += " to " + p.TranslatedTo.String()
	default:
		words += ", not translated"
	}
	switch {
	case p.Outcome == Delivered:
		words += ", on this host"
	case p.Out != "":
		words += ", out " + p.Out
	}
	switch {
	case p.SeenAs != nil && p.Masqueraded:
		words += ", masqueraded as " + p.SeenAs.String()
	case p.SeenAs != nil:
		words += ", seen as " + p.SeenAs.String()
	}
	return words
}

// String names the Service port as elements do: namespace/name:port.
func (s *Service) String() string {
	name := s.Namespace + "/" + s.Name
	if s.Port != "" {
		name += ":" + s.Port
	}
	return name
}
