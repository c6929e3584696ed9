// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"image/color"
	"math"
	"slices"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// look is how a proxy's curve looks. The colours are those of Okabe and Ito, made
// for colour-blind readers too; the marks tell curves apart without any.
type look struct {
	color color.RGBA
	mark  draw.GlyphDrawer
	width vg.Length
}

var looks = map[string]look{
	"kube-nft":      {color.RGBA{0x00, 0x72, 0xb2, 0xff}, draw.CircleGlyph{}, 2.75},
	"nftables":      {color.RGBA{0xd5, 0x5e, 0x00, 0xff}, draw.BoxGlyph{}, 1.5},
	"nftables-1.36": {color.RGBA{0xb9, 0x82, 0x00, 0xff}, draw.SquareGlyph{}, 1.5},
	"iptables":      {color.RGBA{0x00, 0x8a, 0x65, 0xff}, draw.PyramidGlyph{}, 1.5},
	"iptables-nft":  {color.RGBA{0xb3, 0x5c, 0x92, 0xff}, draw.TriangleGlyph{}, 1.5},
	"ipvs":          {color.RGBA{0x22, 0x27, 0x2e, 0xff}, draw.CrossGlyph{}, 1.5},
}

func lookOf(proxy string) look {
	if l, ok := looks[proxy]; ok {
		return l
	}
	return look{muted, draw.PlusGlyph{}, 1.5}
}

// labelRoom is the room at the right for the curves' names. Of those that end before
// the others it is what does not fit beside the rest.
func (p picture) labelRoom() vg.Length {
	const chartWidth = 480 // about
	minX, maxX, _, _ := p.bounds()
	var room vg.Length
	for _, c := range p.curves {
		l := label{text: p.name(c), bold: true}
		rest := chartWidth * math.Log(maxX/c.points[len(c.points)-1].x) / math.Log(maxX/minX)
		room = max(room, l.width()+labelGap-vg.Length(rest))
	}
	return room
}

// name is what a curve is called where it ends, with its last value if that is
// only a bound, or not in the picture.
func (p picture) name(c curve) string {
	title, last := peerOf(c.proxy).title, c.points[len(c.points)-1]
	switch {
	case last.open:
		return title + " > " + plain(last.y, p.unit)
	case p.linear && last.y > highest:
		return title + ", " + plain(last.y, p.unit) + " at " + digits(last.x)
	}
	return title
}

// lines draws the curves, each with its name at its end.
type lines picture

// Plot implements plot.Plotter.
func (l lines) Plot(c draw.Canvas, chart *plot.Plot) {
	toX, toY := chart.Transforms(&c)
	at := func(p point, y float64) vg.Point { return vg.Point{X: toX(p.x), Y: toY(y)} }
	if l.linear {
		c.StrokeLine2(draw.LineStyle{Color: muted, Width: 0.75, Dashes: []vg.Length{2, 2}}, c.Min.X, toY(1), c.Max.X, toY(1))
	}
	var labels []label
	// kube-nft comes first, and is drawn last: on top.
	for _, curve := range slices.Backward(l.curves) {
		look := lookOf(curve.proxy)
		var middle, tail []vg.Point
		for _, p := range curve.points {
			middle = append(middle, at(p, p.y))
			tail = append(tail, at(p, p.tail))
		}
		if l.tail {
			c.StrokeLines(draw.LineStyle{Color: look.color, Width: 1, Dashes: []vg.Length{3, 2.5}}, tail)
		}
		end := middle[len(middle)-1]
		for _, part := range c.ClipLinesY(middle) {
			c.StrokeLines(draw.LineStyle{Color: look.color, Width: look.width}, part)
			end = part[len(part)-1]
		}
		for i, p := range curve.points {
			switch {
			case p.open:
				arrow(c, look.color, middle[i])
			case middle[i].Y <= c.Max.Y+1:
				c.DrawGlyphNoClip(draw.GlyphStyle{Color: look.color, Radius: 3.2, Shape: look.mark}, middle[i])
			}
		}
		labels = append(labels, label{picture(l).name(curve), look.color, curve.proxy == "kube-nft", end, end.Y})
	}
	write(c, labels)
}

// arrow marks a value that is only known to be larger.
func arrow(c draw.Canvas, col color.Color, at vg.Point) {
	tip := vg.Point{X: at.X, Y: at.Y + 13}
	c.StrokeLines(draw.LineStyle{Color: col, Width: 1.5}, []vg.Point{at, tip})
	c.FillPolygon(col, []vg.Point{{X: tip.X, Y: tip.Y + 4}, {X: tip.X - 3.5, Y: tip.Y - 3}, {X: tip.X + 3.5, Y: tip.Y - 3}})
}

// label is a curve's name, to be written where the curve ends.
type label struct {
	text  string
	color color.Color
	bold  bool
	end   vg.Point
	y     vg.Length
}

const (
	labelHeight = 13
	labelGap    = 8
)

func (l label) style() text.Style {
	f := font.Font{}
	if l.bold {
		f.Weight = xfont.WeightBold
	}
	s := style(11, l.color, f)
	s.YAlign = -0.35
	return s
}

func (l label) width() vg.Length {
	s := l.style()
	return s.Width(l.text)
}

// meets reports whether two labels are above each other.
func (l label) meets(o label) bool {
	return l.end.X < o.end.X+labelGap+o.width() && o.end.X < l.end.X+labelGap+l.width()
}

// write writes labels to the right of their curves, apart from each other; other
// curves shine through behind them.
func write(c draw.Canvas, labels []label) {
	slices.SortFunc(labels, func(a, b label) int { return cmp.Compare(a.end.Y, b.end.Y) })
	moved := true
	for round := 0; moved && round < 100; round++ {
		moved = false
		for i := range labels {
			for j := range labels[:i] {
				lower, upper := &labels[j], &labels[i]
				if gap := upper.y - lower.y; gap < labelHeight-0.01 && lower.meets(*upper) {
					lower.y -= (labelHeight - gap) / 2
					upper.y += (labelHeight - gap) / 2
					moved = true
				}
			}
		}
	}
	for _, l := range labels {
		x, w := l.end.X+labelGap, l.width()
		outline := []vg.Point{{X: x - 2, Y: l.y - 6}, {X: x + w + 2, Y: l.y - 6}, {X: x + w + 2, Y: l.y + 6}, {X: x - 2, Y: l.y + 6}}
		if l.end.X < c.Max.X-labelGap {
			c.FillPolygon(veil, outline)
		}
		c.FillText(l.style(), vg.Point{X: x, Y: l.y}, l.text)
	}
}
