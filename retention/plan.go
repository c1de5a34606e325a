package retention

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// State is what one repository holds, as plain data: the input of a plan.
type State struct {
	// Epochs are the lives of the cluster, oldest first.
	Epochs []EpochState
	// Uses are the marks of those who use or write backups.
	Uses []repo.Use
}

// EpochState is what is there of one system identifier.
type EpochState struct {
	Holdings repo.Holdings
	// Unreadable are the labels whose summary is there and cannot be read.
	Unreadable []repo.Label
	Pins       []repo.Pin
	Partials   []repo.Partial
	// HistoryFiles are the names of the server's backup history files.
	HistoryFiles []string
	// Remains are labels below which something is stored that have no summary.
	Remains []repo.Label
	// Journals are those that have a journal, with the time of its last part:
	// another backup can use what they hold.
	Journals map[repo.Label]time.Time
}

// Request is what a plan is made for.
type Request struct {
	Policy Policy
	At     time.Time
	// Zone is where days begin, for the periods. nil: UTC.
	Zone *time.Location
	// Remove are backups to remove whatever the policy says, with all that
	// builds on them.
	Remove []repo.Label
}

// Plan says what stays and what goes.
type Plan struct {
	At      time.Time        `json:"at"`
	Policy  Policy           `json:"policy"`
	Backups []BackupDecision `json:"backups"` // by epoch and stop
	Remains []RemainDecision `json:"remains"`
	Epochs  []EpochPlan      `json:"epochs"` // WAL
	// Warnings are what somebody should look at.
	Warnings []string `json:"warnings,omitempty"`
}

// BackupDecision is what becomes of one backup.
type BackupDecision struct {
	SystemID    pg.SystemID     `json:"system_identifier"`
	Label       repo.Label      `json:"label"`
	Type        repo.BackupType `json:"type"`
	Stop        time.Time       `json:"stop"`
	StoredBytes int64           `json:"stored_bytes"`
	Keep        bool            `json:"keep"`
	Reasons     []string        `json:"reasons"`
}

// RemainDecision is what becomes of the remains of a backup that was killed,
// or whose removal was not finished.
type RemainDecision struct {
	SystemID pg.SystemID `json:"system_identifier"`
	Label    repo.Label  `json:"label"`
	Keep     bool        `json:"keep"`
	Reason   string      `json:"reason"`
}

// Errors of MakePlan.
var (
	// ErrNoBackup: a backup to remove is not there.
	ErrNoBackup = errors.New("no such backup")
	// ErrNeeded: a backup to remove is pinned or in use, or one that builds on
	// it is.
	ErrNeeded = errors.New("backup is needed")
)

// decided is one backup while the plan is made.
type decided struct {
	sum      repo.Summary
	epoch    int
	unusable string // why it cannot be restored; "" if it can
	reasons  []string
	gone     []string // why it is not kept, if no reason keeps it
	// claimed: the full rule keeps it, or keeps what it builds on.
	claimed bool
	finest  bool // kept by the shortest period of the policy
	held    bool // pinned or in use: nothing removes it
	inUse   bool
}

func (b *decided) keep(format string, args ...any) {
	b.reasons = append(b.reasons, fmt.Sprintf(format, args...))
}

func (b *decided) drop(format string, args ...any) {
	b.gone = append(b.gone, fmt.Sprintf(format, args...))
}

// dropWith drops what builds on a backup that no rule for dependents keeps.
func (b *decided) dropWith(parent *decided) {
	if parent.kept() {
		b.drop("%s is kept for itself alone", parent.sum.Label)
		return
	}
	b.drop("it goes with %s", parent.sum.Label)
}

func (b *decided) kept() bool { return len(b.reasons) > 0 }

// decider makes a plan.
type decider struct {
	policy Policy
	at     time.Time
	zone   *time.Location
	state  State
	all    []*decided // by stop, oldest first
	byName []map[repo.Label]*decided
}

// MakePlan decides. It is a pure function of its arguments.
func MakePlan(s State, req Request) (Plan, error) {
	if err := req.Policy.Validate(); err != nil {
		return Plan{}, err
	}
	d := &decider{policy: req.Policy, at: req.At, zone: req.Zone, state: s}
	if d.zone == nil {
		d.zone = time.UTC
	}
	d.load()
	p := Plan{At: req.At.UTC(), Policy: req.Policy, Backups: []BackupDecision{}, Remains: []RemainDecision{}}
	d.hold()
	if err := d.decide(&p, req.Remove); err != nil {
		return Plan{}, err
	}
	d.close()
	for _, b := range d.all {
		reasons := b.reasons
		if !b.kept() {
			if reasons = b.gone; len(reasons) == 0 {
				reasons = []string{"nothing keeps it"}
			}
		}
		p.Backups = append(p.Backups, BackupDecision{
			SystemID: s.Epochs[b.epoch].Holdings.SystemID, Label: b.sum.Label, Type: b.sum.Type, Stop: b.sum.Stop.UTC(),
			StoredBytes: b.sum.StoredBytes, Keep: b.kept(), Reasons: reasons,
		})
	}
	d.remains(&p)
	d.planWAL(&p)
	return p, nil
}

func (d *decider) load() {
	for i, e := range d.state.Epochs {
		names := map[repo.Label]*decided{}
		for _, s := range e.Holdings.Backups {
			b := &decided{sum: s, epoch: i, unusable: unusable(e.Holdings, s)}
			d.all = append(d.all, b)
			names[s.Label] = b
		}
		d.byName = append(d.byName, names)
	}
	slices.SortStableFunc(d.all, func(a, b *decided) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), a.sum.Stop.Compare(b.sum.Stop), cmp.Compare(a.sum.Label, b.sum.Label))
	})
}

// unusable says why a backup cannot be restored, as far as lists can tell.
func unusable(h repo.Holdings, s repo.Summary) string {
	r := h.Reach(h.Line(s.Timeline), s.StartLSN)
	if r.End < s.StopLSN {
		return fmt.Sprintf("segment %s of its own WAL is missing", h.SegmentSize.Name(r.Timeline, r.Missing))
	}
	return ""
}

func (d *decider) newestFirst() []*decided {
	list := slices.Clone(d.all)
	slices.Reverse(list)
	return list
}

// hold finds what is pinned and what is in use.
func (d *decider) hold() {
	for i, e := range d.state.Epochs {
		for _, p := range e.Pins {
			b := d.byName[i][p.Label]
			if b == nil || !p.Holds(d.at) {
				continue
			}
			b.held = true
			text := "pinned for ever"
			if p.Until != nil {
				text = "pinned until " + p.Until.UTC().Format(time.RFC3339)
			}
			if p.Reason != "" {
				text += ": " + p.Reason
			}
			b.keep("%s", text)
		}
		for _, u := range d.state.Uses {
			if b := d.byName[i][u.Label]; b != nil {
				b.held, b.inUse = true, true
				what := u.What
				if what == "" {
					what = "unknown purpose"
				}
				b.keep("in use by %s: %s", u.Holder, what)
			}
		}
	}
}

// decide applies the rules.
func (d *decider) decide(p *Plan, remove []repo.Label) error {
	unreadable := false
	for _, e := range d.state.Epochs {
		for _, l := range e.Unreadable {
			if !slices.Contains(remove, l) {
				unreadable = true
				p.Warnings = append(p.Warnings, fmt.Sprintf("the summary of backup %s cannot be read: what it needs is not known, so nothing else is removed; repair it, or remove it with --remove %s", l, l))
			}
		}
	}
	switch {
	case len(remove) > 0:
		return d.removeOnly(remove)
	case unreadable:
		d.keepAll("a summary is damaged")
	case !slices.ContainsFunc(d.all, func(b *decided) bool { return b.unusable == "" }):
		d.keepAll("no backup here can be restored, so none is removed")
	default:
		d.keepFulls()
		d.keepPeriods()
		d.keepDependents()
	}
	return nil
}

func (d *decider) keepAll(why string) {
	for _, b := range d.all {
		b.keep("%s", why)
		b.claimed = true
	}
}

// removeOnly keeps everything but the named backups and what builds on them.
func (d *decider) removeOnly(remove []repo.Label) error {
	found := map[repo.Label]bool{}
	for _, e := range d.state.Epochs {
		for _, l := range e.Unreadable {
			found[l] = true
		}
	}
	for _, b := range d.all {
		found[b.sum.Label] = true
		named := slices.Contains(remove, b.sum.Label)
		below := named
		for _, a := range append(d.needs(b), b) { // also what is not listed, or cannot be read
			for _, l := range append([]repo.Label{a.sum.Label, a.sum.Parent, a.sum.Label.Full()}, a.sum.References...) {
				below = below || slices.Contains(remove, l)
			}
		}
		switch {
		case below && b.held:
			return fmt.Errorf("remove %v: %s is %s: %w", remove, b.sum.Label, b.reasons[0], ErrNeeded)
		case named:
			b.drop("its removal was asked for")
		case below:
			b.drop("it builds on a backup whose removal was asked for")
		default:
			b.keep("its removal was not asked for")
			b.claimed = true
		}
	}
	for _, l := range remove {
		if !found[l] {
			return fmt.Errorf("remove %s: %w", l, ErrNoBackup)
		}
	}
	return nil
}

// fulls are the full backups, newest first.
func (d *decider) fulls() (list []*decided) {
	for _, b := range d.newestFirst() {
		if b.sum.Type == repo.Full {
			list = append(list, b)
		}
	}
	return list
}

// keepFulls applies the full rule.
func (d *decider) keepFulls() {
	n := d.policy.Full
	switch {
	case n == 0 && d.policy.Keep.IsZero():
		for _, b := range d.fulls() {
			b.keep("no retention of full backups is set")
			b.claimed = true
		}
	case n == 0: // the periods alone decide
	case d.policy.FullByTime:
		d.keepFullsByTime()
	default:
		d.keepFullsByCount()
	}
}

// keepFullsByCount keeps the newest n. One that cannot be restored does not
// count: it would push out one that can.
func (d *decider) keepFullsByCount() {
	n, counted := d.policy.Full, 0
	for _, b := range d.fulls() {
		switch {
		case counted == n:
			b.drop("%d newer full backups are kept", n)
		case b.unusable != "":
			b.keep("not counted: %s", b.unusable)
			b.claimed = true
		default:
			counted++
			b.keep("full backup %d of %d", counted, n)
			b.claimed = true
		}
	}
}

// keepFullsByTime walks from the newest to the oldest: keeps all that are
// younger than n days, and the first that is older, from which the whole time
// can be restored. If none is that old, all stay.
func (d *decider) keepFullsByTime() {
	limit := d.at.Add(-time.Duration(d.policy.Full) * 24 * time.Hour)
	var reached *decided
	for _, b := range d.fulls() {
		switch {
		case reached != nil:
			b.drop("older than %d days, and so is %s, which is newer", d.policy.Full, reached.sum.Label)
		case b.unusable != "":
			b.keep("not counted: %s", b.unusable)
			b.claimed = true
		case b.sum.Stop.Before(limit):
			reached = b
			b.keep("the newest one older than %d days", d.policy.Full)
			b.claimed = true
		default:
			b.keep("younger than %d days", d.policy.Full)
			b.claimed = true
		}
	}
}

// keepDependents applies the differential rule to what builds on a full that
// the full rule keeps: of the newest fulls and differentials together, as many
// as the rule says stay; full ones are never removed by it. Incrementals follow
// what they build on.
func (d *decider) keepDependents() {
	position, limit := 0, d.policy.Differential
	for _, b := range d.newestFirst() {
		full := d.full(b)
		switch b.sum.Type {
		case repo.Full:
			if b.unusable == "" {
				position++
			}
			continue
		case repo.Differential:
			over := limit > 0 && position >= limit
			if b.unusable == "" {
				position++
			}
			switch {
			case full != nil && !full.claimed:
			case over:
				b.drop("%d newer differential or full backups are kept", limit)
			default:
				d.keepBelow(b, full)
			}
		}
	}
	// Incrementals after the differentials that they may build on.
	for _, b := range d.all {
		if b.sum.Type == repo.Incremental {
			if parent := d.parent(b); parent == nil || parent.claimed {
				d.keepBelow(b, parent)
			} else {
				b.dropWith(parent)
			}
		}
	}
	for _, b := range d.all {
		if full := d.full(b); b.sum.Type == repo.Differential && !b.claimed && len(b.gone) == 0 && full != nil {
			b.dropWith(full)
		}
	}
}

func (d *decider) keepBelow(b, parent *decided) {
	b.claimed = true
	if parent == nil {
		b.keep("what it builds on is not listed")
		return
	}
	b.keep("with %s", parent.sum.Label)
}

// full is the full backup of a label, if it is listed.
func (d *decider) full(b *decided) *decided { return d.byName[b.epoch][b.sum.Label.Full()] }

// parent is what a backup builds on, if it is listed, else its full.
func (d *decider) parent(b *decided) *decided {
	if p := d.byName[b.epoch][b.sum.Parent]; p != nil && p != b {
		return p
	}
	return d.full(b)
}

// needs are the listed backups that b cannot do without, or would be wrong
// without: its parents up to the full, and whose packs it uses.
func (d *decider) needs(b *decided) []*decided {
	var list []*decided
	seen := map[*decided]bool{b: true}
	add := func(n *decided) {
		if n != nil && !seen[n] {
			seen[n] = true
			list = append(list, n)
		}
	}
	next := func(b *decided) {
		if b.sum.Type != repo.Full {
			add(d.byName[b.epoch][b.sum.Parent])
			add(d.full(b))
		}
		for _, l := range b.sum.References {
			add(d.byName[b.epoch][l])
		}
	}
	next(b)
	for i := 0; i < len(list); i++ {
		next(list[i])
	}
	return list
}

// close keeps what kept backups need.
func (d *decider) close() {
	for _, b := range d.newestFirst() {
		if !b.kept() {
			continue
		}
		for _, n := range d.needs(b) {
			if !n.kept() {
				n.keep("needed by %s", b.sum.Label)
			}
		}
	}
}

// remains decides about what has no summary.
func (d *decider) remains(p *Plan) {
	for i, e := range d.state.Epochs {
		for _, label := range e.Remains {
			r := RemainDecision{SystemID: e.Holdings.SystemID, Label: label}
			r.Keep, r.Reason = d.remain(i, label)
			p.Remains = append(p.Remains, r)
		}
	}
}

// awaited reports whether what is left of a killed backup stays because the
// next backup may use it: not for ever, and not if a later one was taken that
// leaves no reason to. The next backup itself looks at the same, and at a shorter
// time, so that it never begins to use what is being deleted. Without a journal
// (zero) nobody can use it; it stays as long, if no later backup is there, because
// it is not in the way.
func awaited(label repo.Label, last, now time.Time, existing []repo.Label) bool {
	if last.IsZero() {
		for _, l := range existing {
			if l.Time().After(label.Time()) {
				return false
			}
		}
		last = label.Time()
	}
	return now.Sub(last) < repo.RemainsKept && !repo.Superseded(label, existing)
}

func (d *decider) remain(epoch int, label repo.Label) (keep bool, reason string) {
	for _, u := range d.state.Uses {
		if u.Label == label {
			return true, fmt.Sprintf("in use by %s: %s", u.Holder, u.What)
		}
	}
	var existing []repo.Label
	for _, b := range d.all {
		if b.epoch == epoch && b.kept() && slices.Contains(b.sum.References, label) {
			return true, fmt.Sprintf("needed by %s", b.sum.Label)
		}
		existing = append(existing, b.sum.Label)
	}
	if len(d.state.Epochs[epoch].Unreadable) > 0 {
		return true, "a summary is damaged, which may need it"
	}
	if awaited(label, d.state.Epochs[epoch].Journals[label], d.at, existing) {
		return true, "the next backup of its type can use it"
	}
	return false, "remains of a backup that was killed, or removed in part"
}
