package restore

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// Setting is one line of postgresql.auto.conf.
type Setting struct{ Name, Value string }

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

// ParseSetting reads "name=value".
func ParseSetting(s string) (Setting, error) {
	name, value, ok := strings.Cut(s, "=")
	set := Setting{Name: strings.TrimSpace(name), Value: value}
	if !ok {
		return Setting{}, fmt.Errorf("not a setting: %q (expected name=value)", s)
	}
	return set, set.check()
}

func (s Setting) check() error {
	if !settingName.MatchString(s.Name) {
		return fmt.Errorf("not the name of a setting: %q", s.Name)
	}
	// A line break ends a setting, whatever the quotes.
	if strings.ContainsAny(s.Value, "\n\r\x00") {
		return fmt.Errorf("setting %s: a value cannot hold a line break", s.Name)
	}
	return nil
}

// line is the setting as a configuration file has it: in single quotes, where
// both a quote and a backslash are doubled (guc-file.l).
func (s Setting) line() string {
	v := strings.ReplaceAll(s.Value, `\`, `\\`)
	return s.Name + " = '" + strings.ReplaceAll(v, "'", "''") + "'\n"
}

// RestoreCommand makes restore_command out of a program with its arguments,
// which may hold any characters but line breaks: they are quoted for the shell
// and for the server's own %-sequences.
func RestoreCommand(argv ...string) string {
	var words []string
	for _, a := range argv {
		words = append(words, strings.ReplaceAll(shellWord(a), "%", "%%"))
	}
	return strings.Join(append(words, `get %f "%p"`), " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// targetSettings are all settings of which the server accepts one at a time.
var targetSettings = []string{
	"recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid", "recovery_target_lsn",
}

// obsolete are the settings of an earlier life that must not act in this one.
// Those which decide about recovery would contradict ours;
// archive_cleanup_command and recovery_end_command may delete from somebody
// else's archive; promote_trigger_file may be lying there still.
var obsolete = func() map[string]bool {
	m := map[string]bool{
		"recovery_target_inclusive": true, "recovery_target_timeline": true, "recovery_target_action": true,
		"ignore_invalid_pages": true,
		"restore_command":      true, "archive_cleanup_command": true, "recovery_end_command": true, "promote_trigger_file": true,
	}
	for _, s := range targetSettings {
		m[s] = true
	}
	return m
}()

// recoverySettings are the settings that make the server follow the plan.
func recoverySettings(p *Plan, o *Options) []Setting {
	var set []Setting
	add := func(name, value string) { set = append(set, Setting{name, value}) }
	add("restore_command", o.RestoreCommand)
	if o.RecoveryEndCommand != "" && !p.Standby {
		add("recovery_end_command", o.RecoveryEndCommand)
	}
	// postgresql.conf, which may lie where we cannot see it, may still have
	// the target of an earlier restore, and two different ones are an error.
	// Empty ones come first: the server checks in the order of the lines.
	name, value := p.Target.setting()
	for _, s := range targetSettings {
		if s != name {
			add(s, "")
		}
	}
	if name != "" {
		add(name, value)
		add("recovery_target_action", string(p.Target.Action))
	}
	if p.Target.Exclusive {
		add("recovery_target_inclusive", "false")
	} else {
		add("recovery_target_inclusive", "true")
	}
	if p.Standby {
		// It follows every promotion from now on, unless told otherwise. What it streamed from, and
		// with which slot, in its earlier life is not what is wanted now.
		add("recovery_target_timeline", p.Target.Timeline.String())
		add("primary_conninfo", o.PrimaryConnInfo)
		add("primary_slot_name", "")
	} else {
		add("recovery_target_timeline", p.TimelineSetting)
	}
	if len(o.Include)+len(o.Exclude) > 0 {
		// Most changes of a page bring the whole page when they are the first since a checkpoint, but not
		// all: vacuum sets bits without. Then replay stops at a page of zeroes, unless told otherwise.
		add("ignore_invalid_pages", "on")
	}
	if !o.KeepArchiveMode {
		add("archive_mode", "off")
	}
	return append(set, o.Settings...)
}

// setting is the target as the server's setting; "" for the end of WAL.
func (t Target) setting() (name, value string) {
	switch t.Kind {
	case TargetImmediate:
		return "recovery_target", "immediate"
	case TargetTime, TargetLSN, TargetXID, TargetName:
		return "recovery_target_" + string(t.Kind), t.Value()
	default:
		return "", ""
	}
}

// writtenBy begins the comment above our settings.
const writtenBy = "# Written by walkeep restore"

// editConf returns the content of postgresql.auto.conf with our settings at
// its end. Lines that set the same or an obsolete setting become comments.
func editConf(old []byte, label string, set []Setting) []byte {
	ours := map[string]bool{}
	for _, s := range set {
		ours[strings.ToLower(s.Name)] = true
	}
	var b bytes.Buffer
	for line := range bytes.Lines(old) {
		line = bytes.TrimRight(line, "\r\n")
		if name := settingOf(line); ours[name] || obsolete[name] {
			b.WriteString("# before the restore: ")
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n%s from backup %s.\n", writtenBy, label)
	for _, s := range set {
		b.WriteString(s.line())
	}
	return b.Bytes()
}

// settingOf is the name, in lower case, that a line of a configuration file
// sets; "" if it sets none.
func settingOf(line []byte) string {
	line = bytes.TrimLeft(line, " \t\r")
	n := 0
	for n < len(line) && (line[n] == '_' || line[n] == '.' || line[n] == '$' || line[n] >= '0' && line[n] <= '9' ||
		line[n]|0x20 >= 'a' && line[n]|0x20 <= 'z') {
		n++
	}
	return strings.ToLower(string(line[:n]))
}
