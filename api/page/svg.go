package page

import (
	"html"
	"html/template"
	"strconv"
	"strings"
)

// drawing writes an SVG. Across, it measures in percent, so that it fills its
// place without stretching text and marks; down, in pixels. It is written by
// hand and not by a template because a picture has a thousand marks; all text
// goes through [drawing.text] and title, which escape it.
type drawing struct {
	strings.Builder
}

// begin opens a picture of that height that says label to who cannot see it.
func (d *drawing) begin(class string, height int, label string) {
	d.WriteString(`<svg class="` + class + `" width="100%" height="` + strconv.Itoa(height) + `" role="img" aria-label="` + html.EscapeString(label) + `">`)
}

func (d *drawing) end() template.HTML {
	d.WriteString("</svg>")
	return template.HTML(d.String()) // its texts are escaped
}

// percent writes an attribute in percent.
func (d *drawing) percent(name string, v float64) {
	d.WriteString(" " + name + `="`)
	d.WriteString(strconv.FormatFloat(v, 'f', 2, 64))
	d.WriteString(`%"`)
}

func (d *drawing) pixels(name string, v int) {
	d.WriteString(" " + name + `="` + strconv.Itoa(v) + `"`)
}

// rect draws from x1 to x2, at least minimum percent wide.
func (d *drawing) rect(class string, x1, x2, minimum float64, y, height int, title string) {
	x1, x2 = max(x1, 0), min(x2, 100)
	if x2-x1 < minimum {
		x1 = min((x1+x2-minimum)/2, 100-minimum)
		x2 = x1 + minimum
	}
	d.WriteString(`<rect class="` + class + `"`)
	d.percent("x", x1)
	d.percent("width", x2-x1)
	d.pixels("y", y)
	d.pixels("height", height)
	d.close("rect", title)
}

func (d *drawing) line(class string, x1 float64, y1 int, x2 float64, y2 int) {
	d.WriteString(`<line class="` + class + `"`)
	d.percent("x1", x1)
	d.percent("x2", x2)
	d.pixels("y1", y1)
	d.pixels("y2", y2)
	d.close("line", "")
}

// mark draws one of the shapes that the page defines.
func (d *drawing) mark(shape, class string, x float64, y int, title string) {
	d.WriteString(`<use href="#` + shape + `" class="` + class + `"`)
	d.percent("x", x)
	d.pixels("y", y)
	d.close("use", title)
}

func (d *drawing) text(class string, x float64, y int, text string) {
	d.WriteString(`<text class="` + class + `"`)
	d.percent("x", x)
	d.pixels("y", y)
	d.WriteString(">" + html.EscapeString(text) + "</text>")
}

func (d *drawing) close(name, title string) {
	if title == "" {
		d.WriteString("/>")
		return
	}
	d.WriteString("><title>" + html.EscapeString(title) + "</title></" + name + ">")
}

// grid draws the lines of the axis and the one of now.
func (d *drawing) grid(s scale, ticks []tick, height int) {
	for _, t := range ticks {
		class := "grid"
		if t.second {
			class = "grid second"
		}
		d.line(class, t.x, 0, t.x, height)
	}
	d.line("now", s.x(s.now), 0, s.x(s.now), height)
}
