// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"

	"github.com/kube-nft/kube-nft/controller/load"
	"github.com/kube-nft/kube-nft/controller/view"
)

// Styles. Where there is no colour (NO_COLOR, or a terminal that has none) what
// matters is bold or reverse, and the words say it anyhow.
var (
	stylePlain   = tcell.StyleDefault
	styleBold    = stylePlain.Bold(true)
	styleFaint   = stylePlain.Dim(true)
	styleCursor  = stylePlain.Reverse(true)
	styleWarning = stylePlain.Foreground(color.Yellow)
	styleAlarm   = stylePlain.Foreground(color.Red).Bold(true)
	styleTrend   = stylePlain.Foreground(color.Green)
)

// draw puts everything into the screen's cells; the terminal gets what differs.
func (ui *topUI) draw() {
	ui.screen.Clear()
	width, height := ui.screen.Size()
	if width > 0 && height > 0 {
		first, _ := ui.body()
		ui.head(width, first)
		if ui.detail {
			ui.drawDetail(width, height, first)
		} else {
			ui.drawRows(width, first)
		}
		ui.help(height)
	}
	ui.screen.Show()
}

// text writes a line, from a column on.
func (ui *topUI) text(x, y int, style tcell.Style, s string) {
	ui.screen.PutStrStyled(x, y, s, style)
}

func (ui *topUI) head(width, lines int) {
	line := fmt.Sprintf("kube-nft top  %s  %s", ui.last.At.Format(time.TimeOnly), topSummary(ui.last))
	if ui.paused {
		line = "PAUSED  " + line
	}
	ui.text(0, 0, styleBold, line)
	if lines < 3 {
		return
	}
	about := "sorted by " + string(ui.order)
	if ui.reverse {
		about += ", reversed"
	}
	switch {
	case ui.filter != "" || ui.typing:
		ui.text(0, 1, styleBold, "filter: "+ui.filter+"_")
		ui.text(len([]rune(ui.filter))+11, 1, styleFaint, fmt.Sprintf("%d of %d, %s", len(ui.rows), len(ui.last.Rows), about))
	case ui.last.Note != "":
		ui.text(0, 1, styleWarning, ui.last.Note)
	default:
		ui.text(0, 1, styleFaint, fmt.Sprintf("every %v, %s", ui.options.interval, about))
	}
}

func (ui *topUI) help(height int) {
	if height < 8 {
		return
	}
	words := "q quit  letters filter  arrows move, sort  Enter endpoints  Space pause"
	if ui.detail {
		words = "Esc back  arrows another Service  q quit"
	}
	ui.text(0, height-1, styleFaint, words)
}

// topColumn is a column of the table of Service ports. The name's has what is left.
type topColumn struct {
	title string
	width int
	right bool
	cell  func(ui *topUI, r *load.Row) (string, tcell.Style)
}

// topColumns are the columns beside the name, in the order in which they go when
// there is no room for them: the last one first.
var topColumns = []topColumn{
	{"NEW/S", 7, true, func(_ *topUI, r *load.Row) (string, tcell.Style) { return perSecond(r.PerSecond), styleBold }},
	{"OPEN", 7, true, func(_ *topUI, r *load.Row) (string, tcell.Style) { return howMany(r.Open), stylePlain }},
	{"STATE", 14, false, func(_ *topUI, r *load.Row) (string, tcell.Style) { return topState(r), stateStyle(r.State) }},
	{"TREND", load.Trend / 2, true, func(ui *topUI, r *load.Row) (string, tcell.Style) {
		return spark(r.Trend[load.Trend/2:], ui.ascii), styleTrend
	}},
	{"EP", 4, true, func(ui *topUI, r *load.Row) (string, tcell.Style) {
		if n, ok := ui.counts[r.Name]; ok {
			return fmt.Sprint(n), stylePlain
		}
		return "", stylePlain
	}},
	{"SHARE", 5, true, func(_ *topUI, r *load.Row) (string, tcell.Style) {
		if !r.Busiest.IsValid() {
			return "", stylePlain
		}
		return percent(r.Share), stylePlain
	}},
	{"BUSIEST", 22, false, func(_ *topUI, r *load.Row) (string, tcell.Style) {
		if !r.Busiest.IsValid() {
			return "", stylePlain
		}
		return r.Busiest.String(), stylePlain
	}},
}

// nameWidth is what the name needs at least before other columns have room.
const nameWidth = 24

func stateStyle(s view.State) tcell.Style {
	switch s {
	case view.Refused:
		return styleAlarm
	case view.Dropped, view.Unknown:
		return styleWarning
	}
	return styleFaint
}

// fit returns the columns that there is room for, and what is left for the name.
func fit(width int) (columns []topColumn, name int) {
	name = width
	for _, c := range topColumns {
		if name-c.width-2 < min(nameWidth, width/2) {
			break
		}
		name -= c.width + 2
		columns = append(columns, c)
	}
	return columns, name
}

func (ui *topUI) drawRows(width, first int) {
	columns, name := fit(width)
	rows := ui.visible()
	if first >= 3 {
		ui.text(0, 2, styleFaint, "SERVICE")
		ui.columns(name, 2, columns, func(c topColumn) (string, tcell.Style) { return c.title, styleFaint })
	}
	for i, r := range rows {
		style := stylePlain
		if r.Name == ui.selected {
			style = styleCursor
		}
		ui.text(0, first+i, style, cut(fmt.Sprintf("%s/%s", r.Name, r.Protocol), name))
		ui.columns(name, first+i, columns, func(c topColumn) (string, tcell.Style) { return c.cell(ui, r) })
	}
	if len(ui.rows) == 0 {
		ui.text(0, first, styleWarning, "no Service port has these words: Esc shows all")
	}
}

func (ui *topUI) columns(x, y int, columns []topColumn, cell func(topColumn) (string, tcell.Style)) {
	for _, c := range columns {
		s, style := cell(c)
		s = cut(s, c.width)
		at := x + 2
		if c.right {
			at += c.width - len([]rune(s))
		}
		ui.text(at, y, style, s)
		x += c.width + 2
	}
}

// cut shortens a text to a width.
func cut(s string, width int) string {
	r := []rune(s)
	switch {
	case len(r) <= width:
		return s
	case width <= 1:
		return string(r[:max(width, 0)])
	}
	return string(r[:width-1]) + "~"
}

// drawDetail shows one Service port with its endpoints.
func (ui *topUI) drawDetail(width, height, first int) {
	at := ui.cursor()
	if at < 0 {
		ui.text(0, first, styleWarning, "this Service port is not there any more: Esc shows all")
		return
	}
	r := ui.rows[at]
	if first >= 3 {
		ui.text(0, 2, styleBold, fmt.Sprintf("%s/%s  %s", r.Name, r.Protocol, topState(r)))
	}
	endpoints := ui.last.Endpoints[r.Name]
	ui.text(0, first, stylePlain, fmt.Sprintf("%s new/s, %d since %s, %s open, %d endpoints", perSecond(r.PerSecond), r.New,
		ui.last.Since.Format(time.TimeOnly), howMany(r.Open), serving(endpoints)))
	if x := width - load.Trend - 1; x > 60 {
		ui.text(x, first, styleTrend, spark(r.Trend[:], ui.ascii))
	}
	ui.text(0, first+1, styleFaint, fmt.Sprintf("%-40s %7s %7s %7s  %s", "ENDPOINT", "NEW/S", "NEW", "OPEN", "SHARE"))
	room := height - first - 3
	for i, e := range endpoints {
		if i >= room {
			ui.text(0, first+2+i, styleFaint, fmt.Sprintf("… %d more", len(endpoints)-i))
			break
		}
		style, note := stylePlain, ""
		if e.Left {
			style, note = styleFaint, " left"
		}
		ui.text(0, first+2+i, style, fmt.Sprintf("%-40s %7s %7d %7d  %4s %s%s", cut(e.Addr.String(), 40), perSecond(e.PerSecond), e.New, e.Open,
			percent(e.Share), ui.bar(e.Share, width-74), note))
	}
}

// bar draws a share.
func (ui *topUI) bar(share float64, width int) string {
	block := "█"
	if ui.ascii {
		block = "#"
	}
	return strings.Repeat(block, int(share*float64(min(max(width, 0), 40))+0.5))
}
