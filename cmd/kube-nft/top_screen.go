// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v3"

	"github.com/kube-nft/kube-nft/controller/load"
	"github.com/kube-nft/kube-nft/controller/view"
)

// topUI is what is on the screen. The goroutine in topScreen owns it; readings are
// made beside it, so that keys are answered while the kernel is asked.
type topUI struct {
	screen   tcell.Screen
	options  topOptions
	last     *glance
	rows     []*load.Row // as filtered and sorted
	filter   string
	typing   bool // the filter is being typed, whatever the letter
	order    load.Order
	reverse  bool
	selected view.Name
	offset   int // of the first row on the screen
	detail   bool
	paused   bool
	ascii    bool
	counts   map[view.Name]int // endpoints, as far as somebody has looked
}

// topScreen shows readings until somebody quits.
func topScreen(ctx context.Context, s *topSampler, o topOptions, first *glance) error {
	// The terminal is not asked what it can do: what is used here every one can.
	screen, err := tcell.NewScreen(tcell.OptNegotiation(false), tcell.OptSanitizeContent(true))
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("no screen on this terminal (TERM), use --batch: %w", err)
	}
	defer screen.Fini()
	screen.HideCursor()
	ui := &topUI{screen: screen, options: o, last: first, order: o.order, filter: o.filter, counts: make(map[view.Name]int)}
	ui.ascii = screen.CharacterSet() != "UTF-8"
	ui.choose()
	ui.draw()
	return ui.loop(ctx, s)
}

func (ui *topUI) loop(ctx context.Context, s *topSampler) error {
	type outcome struct {
		*glance
		err error
	}
	made := make(chan outcome, 1)
	busy := false
	tick := time.NewTicker(ui.options.interval)
	defer tick.Stop()
	defer func() {
		if busy {
			<-made // before the sampler is closed
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !busy && !ui.paused {
				busy = true
				wanted := ui.wanted()
				go func() {
					r, err := s.read(ctx, wanted)
					made <- outcome{r, err}
				}()
			}
		case r := <-made:
			busy = false
			switch {
			case ctx.Err() != nil:
				return nil
			case r.err != nil:
				return r.err
			}
			ui.take(r.glance)
		case event := <-ui.screen.EventQ():
			if event == nil || !ui.handle(event) {
				return nil
			}
		}
		ui.draw()
	}
}

// take takes a new glance.
func (ui *topUI) take(r *glance) {
	ui.last = r
	for name, all := range r.Endpoints {
		ui.counts[name] = serving(all)
	}
	ui.choose()
}

// choose filters and sorts the rows anew. The cursor stays on its Service port.
func (ui *topUI) choose() {
	ui.rows = ui.last.Select(ui.filter, ui.order, ui.reverse)
	if len(ui.rows) > 0 && ui.cursor() < 0 {
		ui.selected = ui.rows[0].Name
	}
}

// cursor is the row of the selected Service port, -1 if it is not there.
func (ui *topUI) cursor() int {
	for i, r := range ui.rows {
		if r.Name == ui.selected {
			return i
		}
	}
	return -1
}

// wanted lists the Service ports on the screen, whose endpoints are looked up.
func (ui *topUI) wanted() []view.Name {
	if ui.detail {
		return []view.Name{ui.selected}
	}
	var names []view.Name
	for _, r := range ui.visible() {
		names = append(names, r.Name)
	}
	return names
}

// visible lists the rows that there is room for.
func (ui *topUI) visible() []*load.Row {
	_, room := ui.body()
	if room <= 0 || len(ui.rows) == 0 {
		return nil
	}
	at := max(ui.cursor(), 0)
	ui.offset = min(ui.offset, max(len(ui.rows)-room, 0), at)
	ui.offset = max(ui.offset, at-room+1)
	return ui.rows[ui.offset:min(ui.offset+room, len(ui.rows))]
}

// body says at which line rows begin, and how many there is room for.
func (ui *topUI) body() (first, room int) {
	_, height := ui.screen.Size()
	first = 3
	if height < 6 {
		first = 1
	}
	room = height - first
	if height >= 8 {
		room-- // a line of help
	}
	return first, room
}

// handle takes a key or a new size; it reports false if it was to quit.
func (ui *topUI) handle(event tcell.Event) bool {
	switch e := event.(type) {
	case *tcell.EventResize:
		ui.screen.Sync()
	case *tcell.EventKey:
		return ui.key(e)
	case *tcell.EventError:
		return false
	}
	return true
}

func (ui *topUI) key(e *tcell.EventKey) bool {
	_, page := ui.body()
	switch e.Key() {
	case tcell.KeyCtrlC:
		return false
	case tcell.KeyEsc:
		return ui.back()
	case tcell.KeyUp:
		ui.move(-1)
	case tcell.KeyDown:
		ui.move(1)
	case tcell.KeyPgUp:
		ui.move(-page)
	case tcell.KeyPgDn:
		ui.move(page)
	case tcell.KeyHome:
		ui.move(-len(ui.rows))
	case tcell.KeyEnd:
		ui.move(len(ui.rows))
	case tcell.KeyLeft:
		ui.sortBy(-1)
	case tcell.KeyRight, tcell.KeyTab:
		ui.sortBy(1)
	case tcell.KeyCtrlR:
		ui.reverse = !ui.reverse
		ui.choose()
	case tcell.KeyCtrlL:
		ui.screen.Sync()
	case tcell.KeyEnter:
		ui.detail = !ui.detail && ui.cursor() >= 0
		ui.typing = false
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		if r := []rune(ui.filter); len(r) > 0 {
			ui.filter = string(r[:len(r)-1])
			ui.choose()
		}
	case tcell.KeyRune:
		return ui.letter(e.Str())
	}
	return true
}

// letter takes a letter: of the filter, but for those that mean something while
// nothing is typed.
func (ui *topUI) letter(s string) bool {
	if ui.filter == "" && !ui.typing {
		switch s {
		case "q":
			return false
		case " ":
			ui.paused = !ui.paused
			return true
		case "/":
			ui.typing = true
			return true
		}
	}
	if ui.detail {
		return s != "q"
	}
	ui.filter += s
	ui.choose()
	return true
}

// back leaves what was entered last; it reports false if there is nothing left.
func (ui *topUI) back() bool {
	switch {
	case ui.detail:
		ui.detail = false
	case ui.filter != "" || ui.typing:
		ui.filter, ui.typing = "", false
		ui.choose()
	default:
		return false
	}
	return true
}

func (ui *topUI) move(by int) {
	if len(ui.rows) == 0 {
		return
	}
	at := min(max(ui.cursor()+by, 0), len(ui.rows)-1)
	ui.selected = ui.rows[at].Name
}

func (ui *topUI) sortBy(by int) {
	for i, o := range load.Orders {
		if o == ui.order {
			ui.order = load.Orders[(i+by+len(load.Orders))%len(load.Orders)]
			break
		}
	}
	ui.choose()
}

// spark draws numbers as bars of eight heights, the largest one full.
func spark(values []float32, ascii bool) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	if ascii {
		bars = []rune("_.-:=+*#")
	}
	most := float32(0)
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for _, v := range values {
		switch {
		case v <= 0:
			b.WriteRune(' ')
		default:
			b.WriteRune(bars[min(int(v/most*float32(len(bars))), len(bars)-1)])
		}
	}
	return b.String()
}
