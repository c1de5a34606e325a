package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/repo"
)

// printDetails writes one backup for people.
func printDetails(w io.Writer, d backupDetails, zone *time.Location) error {
	p := &table{w: w, zone: zone}
	p.linef("backup %s in %s", d.Label, d.Repo)
	p.rows(summaryRows(p, d))
	if len(d.Tablespaces) > 0 {
		rows := [][]string{{"tablespace", "size", "path"}}
		for _, t := range d.Tablespaces {
			rows = append(rows, []string{fmt.Sprint(t.OID), size(t.Bytes), t.Path})
		}
		p.section(rows)
	}
	if len(d.Databases) > 0 {
		rows := [][]string{{"database (oid)", "size", "files"}}
		for _, db := range d.Databases {
			rows = append(rows, []string{fmt.Sprint(db.OID), size(db.Bytes), fmt.Sprint(db.Files)})
		}
		p.section(rows)
	}
	if len(d.Largest) > 0 {
		rows := [][]string{{"largest files", "size"}}
		for _, f := range d.Largest {
			rows = append(rows, []string{printable(f.Path), size(f.Bytes)})
		}
		p.section(rows)
	}
	if d.Parent != "" {
		rows := [][]string{{"changes detected by", "files", "size", "stored here"}}
		for _, w := range d.Detect {
			rows = append(rows, []string{w.By, fmt.Sprint(w.Files), size(w.Bytes), size(w.Own)})
		}
		p.section(rows)
	}
	if len(d.EveryFile) > 0 {
		rows := [][]string{{"file", "changes detected by", "size", "stored here"}}
		for _, f := range d.EveryFile {
			rows = append(rows, []string{printable(f.Path), f.By, size(f.Bytes), size(f.Own)})
		}
		p.section(rows)
	}
	if len(d.BadPages) > 0 {
		rows := [][]string{{"DAMAGED PAGES in", "page numbers"}}
		for _, b := range d.BadPages {
			rows = append(rows, []string{printable(b.Path), strings.Trim(fmt.Sprint(b.Pages), "[]")})
		}
		p.section(rows)
	}
	return p.err
}

func (p *table) section(rows [][]string) {
	p.linef("")
	p.rows(rows)
}

func summaryRows(p *table, d backupDetails) [][]string {
	rows := [][]string{
		{"type", string(d.Type)},
		{"parent", string(d.Parent)},
		{"started", p.second(d.Start)},
		{"finished", p.second(d.Stop) + " (" + took(d.Start, d.Stop) + ")"},
		{"WAL", fmt.Sprintf("%s to %s, timeline %d", d.StartLSN, d.StopLSN, d.Timeline)},
		{"PostgreSQL", serverVersion(d.PGVersion)},
		{"system identifier", d.SystemID.String()},
		{"taken from", origin(d)},
		{"size", fmt.Sprintf("%s in %d files, %d directories, %d links", size(d.Bytes), d.Files, d.Directories, d.Links)},
		{"stored", size(d.StoredBytes)},
		{"codec", d.Codec},
		{"encrypted", yesNo(d.Encrypted)},
		{"page checksums", checksums(d)},
		{"references", joinLabels(d.References)},
		{"annotations", strings.Join(annotations(d.Annotations), ", ")},
		{"manifest", fmt.Sprintf("%s, SHA-256 %s", size(d.Manifest.Size), d.Manifest.SHA256)},
		{"walkeep", d.WalkeepVersion},
	}
	kept := rows[:0]
	for _, row := range rows {
		if row[1] != "" {
			kept = append(kept, row)
		}
	}
	return kept
}

// serverVersion is a server_version_num for people: 150013 is 15.13.
func serverVersion(num int) string { return fmt.Sprintf("%d.%d", num/10000, num%10000) }

func origin(d backupDetails) string {
	role := "primary"
	if d.FromStandby {
		role = "standby"
	}
	if d.Node != "" {
		role += " " + d.Node
	}
	if d.PGData != "" {
		role += ", " + d.PGData
	}
	if d.Source == backup.SourceSQL {
		role += ", read over SQL"
	}
	return role
}

func checksums(d backupDetails) string {
	switch {
	case !d.DataChecksums:
		return "off on this cluster"
	case d.PageErrors > 0:
		return fmt.Sprintf("%d BAD PAGES", d.PageErrors)
	default:
		return "all pages good"
	}
}

func joinLabels(labels []repo.Label) string {
	var all []string
	for _, l := range labels {
		all = append(all, string(l))
	}
	return strings.Join(all, ", ")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// printable is a text as it is if a terminal can show it, else quoted: nobody
// shall paint the reader's screen with a file name or an annotation.
func printable(text string) string {
	if q := strconv.Quote(text); q != `"`+text+`"` {
		return q
	}
	return text
}
