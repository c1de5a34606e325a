package main

import (
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/walkeep/walkeep/pg"
)

// Sizes of the picture, in its own units.
const (
	pictureWidth = 1000
	marginLeft   = 110
	rowHeight    = 16
)

// drawSVG draws what each run needed for recovery from its first backup to its
// end, timeline by timeline, and what of it was in the archive. Every run has
// its own scale: the clusters wrote at the same time, not the same.
func drawSVG(all []result) string {
	var body strings.Builder
	y := 24
	legend(&body, y)
	y += 26
	for _, r := range all {
		y = drawRun(&body, r, y) + 18
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n%s</svg>\n", pictureWidth, y, body.String())
}

const (
	colorHeld    = "#3a7d44"
	colorMissing = "#d62828"
)

func legend(b *strings.Builder, y int) {
	for i, l := range []struct{ color, text string }{
		{colorHeld, "in the archive"}, {colorMissing, "missing: recovery ends here"},
	} {
		x := marginLeft + i*140
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", x, y-11, l.color, x+18, y, l.text)
	}
}

// drawRun draws one run below y and returns where it ends.
func drawRun(b *strings.Builder, r result, y int) int {
	missing := segments(r.Missing)
	verdict := fmt.Sprintf("%d segments needed, %d missing, %d timelines", segments(r.Need), missing, len(r.Need))
	fmt.Fprintf(b, `<text x="10" y="%d" font-weight="bold">%s</text><text x="%d" y="%d" text-anchor="end">%s</text>`+"\n",
		y+12, html.EscapeString(r.Name), pictureWidth-10, y+12, verdict)
	y += 22
	if len(r.Need) == 0 {
		return y
	}
	first, last := r.Need[0].First, r.Need[len(r.Need)-1].Last
	scale := float64(pictureWidth-marginLeft-10) / float64(last-first+1)
	bar := func(x run, color string, atLeast float64) {
		left := marginLeft + float64(x.First-first)*scale
		width := max(atLeast, float64(x.Last-x.First+1)*scale)
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y+2, width, rowHeight-4, color)
	}
	for _, t := range timelines(r.Need) {
		fmt.Fprintf(b, `<text x="10" y="%d">timeline %d</text>`+"\n", y+12, t)
		for _, x := range r.Need {
			if x.Timeline == t {
				bar(x, colorHeld, 0)
			}
		}
		for _, x := range r.Missing {
			if x.Timeline == t {
				bar(x, colorMissing, 1.5) // always to be seen
			}
		}
		y += rowHeight
	}
	return y
}

func timelines(runs []run) (out []pg.Timeline) {
	for _, r := range runs {
		out = append(out, r.Timeline)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
