package rest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

type listBackupsInput struct {
	RepoQuery
	Type       string `query:"type" enum:"full,differential,incremental" doc:"Only of this type."`
	Since      string `query:"since" maxLength:"64" doc:"Only those that ended at this moment (RFC 3339) or later."`
	Until      string `query:"until" maxLength:"64" doc:"Only those that ended at this moment (RFC 3339) or before."`
	Annotation string `query:"annotation" maxLength:"2000" doc:"Only those with this annotation: KEY, or KEY=VALUE." example:"ticket=OPS-12"`
	Limit      int    `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"How many at most."`
	After      string `query:"after" maxLength:"200" doc:"What \"next\" of the page before says."`
}

// backups registers the list of backups, and one backup.
func (h *handler) backups(a huma.API) {
	register(h, a, operation{
		id: "list-backups", method: http.MethodGet, path: "/v1/backups", tag: "backups", role: api.Viewer,
		summary: "The backups", description: "The newest first, in pages: \"next\" of a page is \"after\" of the next one. A page stays right when backups come and go meanwhile.",
		errors: []int{http.StatusNotFound},
	}, h.listBackups)
	register(h, a, operation{
		id: "get-backup", method: http.MethodGet, path: "/v1/repos/{repo}/backups/{label}", tag: "backups", role: api.Viewer,
		summary: "One backup", description: "With the backups that it needs, and those that need it.", errors: []int{http.StatusNotFound},
	}, h.oneBackup)
	register(h, a, operation{
		id: "get-backup-contents", method: http.MethodGet, path: "/v1/repos/{repo}/backups/{label}/contents", tag: "backups", role: api.Viewer,
		summary:     "What a backup holds",
		description: "Its summary, and what its manifest says of tablespaces, databases, large files, changes and damaged pages. It is read from the repository.",
		errors:      []int{http.StatusNotFound, http.StatusInternalServerError, http.StatusGatewayTimeout},
	}, func(ctx context.Context, in *oneBackupInput) (*body[api.BackupContents], error) {
		label, err := repo.ParseLabel(in.Label)
		if err != nil {
			return nil, fmt.Errorf("backup %q of %s: %w", in.Label, in.Repo, api.ErrNotFound)
		}
		if _, err := h.repository(in.Repo); err != nil {
			return nil, err
		}
		c, err := h.Service.Contents(ctx, in.Repo, label)
		if err != nil {
			return nil, err
		}
		return answer(c), nil
	})
}

// backupFilter is what a query asks for.
type backupFilter struct {
	kind         repo.BackupType
	since, until time.Time
	key, value   string
	anyValue     bool
}

func (in *listBackupsInput) filter() (f backupFilter, err error) {
	f.kind = repo.BackupType(in.Type)
	var exact bool
	f.key, f.value, exact = strings.Cut(in.Annotation, "=")
	f.anyValue = !exact
	for _, t := range []struct {
		name, text string
		to         *time.Time
	}{{"since", in.Since, &f.since}, {"until", in.Until, &f.until}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = moment(t.text); err != nil {
			return f, invalid("query."+t.name, err.Error())
		}
	}
	return f, nil
}

func (f backupFilter) match(b *api.Backup) bool {
	if f.key != "" {
		if v, ok := b.Annotations[f.key]; !ok || !f.anyValue && v != f.value {
			return false
		}
	}
	return (f.kind == "" || b.Type == f.kind) && !b.Stop.Before(f.since) && (f.until.IsZero() || !b.Stop.After(f.until))
}

// place is where a backup stands in the list: the newest first, and of one
// moment by repository and label. It is what pages go on from, so that no
// backup is skipped or seen twice when others come and go.
type place struct {
	stop  int64 // microseconds since 1970
	repo  string
	label string
}

func placeOf(repo string, b *api.Backup) place {
	return place{b.Stop.UnixMicro(), repo, string(b.Label)}
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(o.stop, p.stop), strings.Compare(p.repo, o.repo), strings.Compare(p.label, o.label))
}

func (p place) String() string { return fmt.Sprintf("%d~%s~%s", p.stop, p.repo, p.label) }

func parsePlace(s string) (p place, err error) {
	parts := strings.SplitN(s, "~", 3)
	if len(parts) != 3 {
		return p, invalid("query.after", `expected what "next" of a page says`)
	}
	if p.stop, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
		return p, invalid("query.after", `expected what "next" of a page says`)
	}
	p.repo, p.label = parts[1], parts[2]
	return p, nil
}

func (h *handler) listBackups(_ context.Context, in *listBackupsInput) (*body[api.BackupPage], error) {
	repos, err := h.repositories(in.RepoQuery)
	if err != nil {
		return nil, err
	}
	filter, err := in.filter()
	if err != nil {
		return nil, err
	}
	after := place{}
	if in.After != "" {
		if after, err = parsePlace(in.After); err != nil {
			return nil, err
		}
	}
	type found struct {
		place
		*api.Backup
	}
	var all []found
	for i := range repos {
		for j := range repos[i].Backups {
			b := &repos[i].Backups[j]
			p := placeOf(repos[i].Name, b)
			if filter.match(b) && (in.After == "" || p.compare(after) > 0) {
				all = append(all, found{p, b})
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int { return a.compare(b.place) })
	page := api.BackupPage{Backups: []api.ListedBackup{}}
	if len(all) > in.Limit {
		all = all[:in.Limit]
		page.Next = all[in.Limit-1].place.String()
	}
	for _, f := range all {
		page.Backups = append(page.Backups, api.ListedBackup{Repo: f.repo, Backup: *f.Backup})
	}
	return answer(page), nil
}

type oneBackupInput struct {
	RepoPath
	Label string `path:"label" maxLength:"63" doc:"Label of a backup." example:"20261122-010000F"`
}

func (h *handler) oneBackup(_ context.Context, in *oneBackupInput) (*body[api.BackupDetails], error) {
	r, err := h.repository(in.Repo)
	if err != nil {
		return nil, err
	}
	byLabel := make(map[repo.Label]*api.Backup, len(r.Backups))
	for i := range r.Backups {
		byLabel[r.Backups[i].Label] = &r.Backups[i]
	}
	b := byLabel[repo.Label(in.Label)]
	if b == nil {
		return nil, fmt.Errorf("backup %q of %s: %w", in.Label, in.Repo, api.ErrNotFound)
	}
	d := api.BackupDetails{
		ListedBackup: api.ListedBackup{Repo: r.Name, Backup: *b}, Needs: needs(byLabel, b), NeededBy: []repo.Label{},
	}
	slices.Reverse(d.Needs)
	for i := range slices.Backward(r.Backups) {
		if slices.Contains(needs(byLabel, &r.Backups[i]), b.Label) {
			d.NeededBy = append(d.NeededBy, r.Backups[i].Label)
		}
	}
	return answer(d), nil
}

// needs are the parents of a backup, the nearest first.
func needs(byLabel map[repo.Label]*api.Backup, b *api.Backup) []repo.Label {
	chain := []repo.Label{}
	for b.Parent != "" && len(chain) < len(byLabel) {
		chain = append(chain, b.Parent)
		if b = byLabel[b.Parent]; b == nil {
			break
		}
	}
	return chain
}
