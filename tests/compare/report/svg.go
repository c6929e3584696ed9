// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"image/color"
	"math"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The size of a picture, in points. It is a white card, so that it can be read on
// a dark page too.
const (
	width  = 640
	height = 380
	margin = 18
	corner = 8
)

// highest is where a linear scale ends: what costs more leaves the picture, and its
// name says how much it is, so that the others can be told apart.
const highest = 3

var (
	ink   = color.RGBA{0x22, 0x27, 0x2e, 0xff}
	muted = color.RGBA{0x5b, 0x63, 0x6d, 0xff}
	grid  = color.RGBA{0xe4, 0xe7, 0xeb, 0xff}
	veil  = color.RGBA{0xcc, 0xcc, 0xcc, 0xcc}
	edge  = color.RGBA{0xd0, 0xd7, 0xde, 0xff}
)

// svg draws the picture.
func (p picture) svg() ([]byte, error) {
	canvas := vgsvg.New(width, height)
	c := draw.New(canvas)
	card(c)
	c.FillText(style(15, ink, font.Font{Weight: xfont.WeightBold}), vg.Point{X: margin, Y: height - margin - 11}, p.title)
	if p.subtitle != "" {
		c.FillText(style(11, muted, font.Font{}), vg.Point{X: margin, Y: height - margin - 28}, p.subtitle)
	}
	chart := plot.New()
	chart.BackgroundColor = color.Transparent
	p.axes(chart)
	chart.Add(lines(p))
	chart.Draw(draw.Crop(c, margin, -margin-p.labelRoom(), margin-6, -margin-44))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	return tidy(b.Bytes()), nil
}

// tidy takes away what the library says about itself, and names fonts that are as
// wide as its own where that one is not installed.
func tidy(svg []byte) []byte {
	svg = bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	svg = bytes.ReplaceAll(svg, []byte("font-variant:normal;"), nil)
	svg = bytes.ReplaceAll(svg, []byte("font-style:normal;"), nil)
	return svg
}

// card is the white ground.
func card(c draw.Canvas) {
	const in = 0.5
	var p vg.Path
	right, top := vg.Length(width-in), vg.Length(height-in)
	p.Move(vg.Point{X: in + corner, Y: in})
	p.Line(vg.Point{X: right - corner, Y: in})
	p.Arc(vg.Point{X: right - corner, Y: in + corner}, corner, -math.Pi/2, math.Pi/2)
	p.Line(vg.Point{X: right, Y: top - corner})
	p.Arc(vg.Point{X: right - corner, Y: top - corner}, corner, 0, math.Pi/2)
	p.Line(vg.Point{X: in + corner, Y: top})
	p.Arc(vg.Point{X: in + corner, Y: top - corner}, corner, math.Pi/2, math.Pi/2)
	p.Line(vg.Point{X: in, Y: in + corner})
	p.Arc(vg.Point{X: in + corner, Y: in + corner}, corner, math.Pi, math.Pi/2)
	p.Close()
	c.SetColor(color.White)
	c.Fill(p)
	c.SetLineStyle(draw.LineStyle{Color: edge, Width: 1})
	c.Stroke(p)
}

func style(size font.Length, c color.Color, f font.Font) text.Style {
	f.Typeface, f.Variant, f.Size = "Liberation", "Sans", size
	return text.Style{Color: c, Font: f, Handler: plot.DefaultTextHandler}
}

// axes sets the scales, so that everything is in view and begins at a round number.
func (p picture) axes(chart *plot.Plot) {
	minX, maxX, minY, maxY := p.bounds()
	x, y := &chart.X, &chart.Y
	for _, a := range []*plot.Axis{x, y} {
		a.LineStyle = draw.LineStyle{}
		a.Padding = 4
		a.Tick.LineStyle = draw.LineStyle{}
		a.Tick.Length = 0
		a.Tick.Label = style(11, muted, font.Font{})
		a.Label.TextStyle = style(11, muted, font.Font{})
		a.Label.Padding = 5
	}
	x.Tick.Label.XAlign, x.Tick.Label.YAlign = text.XCenter, text.YTop-0.3
	y.Tick.Label.XAlign, y.Tick.Label.YAlign = text.XRight, text.YCenter
	x.LineStyle = draw.LineStyle{Color: muted, Width: 0.75}
	x.Scale, x.Min, x.Max = plot.LogScale{}, minX/1.06, maxX*1.06
	x.Label.Text = "Services"
	if p.rates {
		x.Label.Text = "other changes a second"
	}
	x.Tick.Marker = plot.ConstantTicks(decades(x.Min, x.Max, digits))
	unit := func(v float64) string { return plain(v, p.unit) }
	if p.linear {
		y.Min, y.Max = 0, min(maxY*1.08, highest)
		y.Tick.Marker = plot.ConstantTicks(steps(y.Max, digits))
	} else {
		y.Scale, y.Min, y.Max = plot.LogScale{}, math.Pow(10, math.Floor(math.Log10(minY))), maxY*1.3
		if minY/y.Min > 4 {
			y.Min = minY / 2
		}
		y.Tick.Marker = plot.ConstantTicks(decades(y.Min, y.Max, unit))
	}
	lines := plotter.NewGrid()
	lines.Vertical = draw.LineStyle{}
	lines.Horizontal = draw.LineStyle{Color: grid, Width: 0.75}
	chart.Add(lines)
}

func (p picture) bounds() (minX, maxX, minY, maxY float64) {
	minX, minY = math.Inf(1), math.Inf(1)
	for _, c := range p.curves {
		for _, at := range c.points {
			minX, maxX = min(minX, at.x), max(maxX, at.x)
			minY, maxY = min(minY, at.y), max(maxY, at.y)
			if p.tail {
				maxY = max(maxY, at.tail)
			}
		}
	}
	return minX, maxX, minY, maxY
}

// decades are ticks at powers of ten; between them, if there are few, at 2 and 5
// or at 3 times those.
func decades(from, to float64, label func(float64) string) []plot.Tick {
	factors := []float64{1}
	switch span := math.Log10(to / from); {
	case span < 1.5:
		factors = []float64{1, 2, 5}
	case span < 2.6:
		factors = []float64{1, 3}
	}
	var ticks []plot.Tick
	for exp := math.Floor(math.Log10(from)); exp <= math.Ceil(math.Log10(to)); exp++ {
		for _, f := range factors {
			if v := f * math.Pow(10, exp); v >= from && v <= to {
				ticks = append(ticks, plot.Tick{Value: v, Label: label(v)})
			}
		}
	}
	return ticks
}

// steps are some five ticks from 0, at round numbers.
func steps(to float64, label func(float64) string) []plot.Tick {
	unit := math.Pow(10, math.Floor(math.Log10(to/5)))
	for _, f := range []float64{1, 2, 5, 10} {
		if to/(f*unit) <= 6 {
			unit *= f
			break
		}
	}
	var ticks []plot.Tick
	for i := 0; float64(i)*unit <= to; i++ {
		ticks = append(ticks, plot.Tick{Value: float64(i) * unit, Label: label(float64(i) * unit)})
	}
	return ticks
}
