package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo"
)

var begin = time.Date(2026, 11, 22, 0, 30, 0, 0, time.UTC)

func job(t testing.TB, kind Kind, text string) Job {
	s, err := ParseSchedule(text, time.UTC)
	require.NoError(t, err)
	return Job{Repo: "repo1", Kind: kind, Schedule: s}
}

func done(kind Kind, due, started, ended time.Time, outcome repo.RunOutcome) repo.JobRun {
	return repo.JobRun{Repo: "repo1", Kind: string(kind), Due: due, Started: started, Ended: ended, Outcome: outcome, Attempt: 1}
}

func TestFullSwallows(t *testing.T) {
	jobs := []Job{job(t, Incremental, "0 * * * *"), job(t, Differential, "0 1 * * *"), job(t, Full, "0 1 * * *")}
	one := begin.Add(30 * time.Minute)
	s := State{Now: one, Since: begin}
	d := Decide(jobs, s)
	require.Len(t, d.Start, 1)
	require.Equal(t, Full, d.Start[0].Job.Kind)
	s.History = []repo.JobRun{done(Full, one, one, time.Time{}, "")}
	require.Empty(t, Decide(jobs, s).Start, "it runs")
	s.Now = one.Add(2*time.Hour + time.Minute)
	s.History[0] = done(Full, one, one, one.Add(2*time.Hour), repo.RunDone)
	d = Decide(jobs, s)
	require.Equal(t, Incremental, d.Start[0].Job.Kind, "of 03:00, for 02:00 too")
	require.Equal(t, one.Add(2*time.Hour), d.Start[0].Due)

	// It fails: what it would have swallowed waits for its attempts, and runs then.
	s.Now, s.History[0] = one.Add(time.Minute), done(Full, one, one, one.Add(30*time.Second), repo.RunFailed)
	require.Empty(t, Decide(jobs, s).Start)
	require.Equal(t, one.Add(90*time.Second), Decide(jobs, s).Next)
	s.Now = one.Add(2 * time.Minute)
	d = Decide(jobs, s)
	require.Equal(t, Start{Job: jobs[2], Due: one, Attempt: 2}, d.Start[0])
	s.History[0].Attempt = 3
	d = Decide(jobs, s)
	require.Equal(t, Differential, d.Start[0].Job.Kind)
}

func TestCaughtUpOnce(t *testing.T) {
	jobs := []Job{job(t, Incremental, "0 * * * *")}
	last := begin.Add(-30 * time.Minute)
	s := State{Now: begin.Add(72 * time.Hour), Since: begin.Add(72 * time.Hour), History: []repo.JobRun{done(Incremental, last, last, last.Add(time.Minute), repo.RunDone)}}
	d := Decide(jobs, s)
	require.Len(t, d.Start, 1)
	require.Equal(t, begin.Add(71*time.Hour+30*time.Minute), d.Start[0].Due)
	s.History = append(s.History, done(Incremental, d.Start[0].Due, s.Now, s.Now.Add(time.Minute), repo.RunDone))
	s.Now = s.Now.Add(2 * time.Minute)
	require.Empty(t, Decide(jobs, s).Start)

	require.Empty(t, Decide(jobs, State{Now: begin, Since: begin}).Start, "without history nothing is caught up")
	s.History = s.History[:1]
	s.Paused = map[string]bool{"repo1": true}
	require.Empty(t, Decide(jobs, s).Start)
}

func TestExpiryAfterBackup(t *testing.T) {
	jobs := []Job{job(t, Full, "0 1 * * *"), {Repo: "repo1", Kind: Expire, AfterBackup: true}}
	one := begin.Add(30 * time.Minute)
	for _, outcome := range []repo.RunOutcome{repo.RunDone, repo.RunFailed, repo.RunLost} {
		full := done(Full, one, one, one.Add(10*time.Minute), outcome)
		s := State{Now: full.Ended, Since: begin, History: []repo.JobRun{full}}
		d := Decide(jobs, s)
		require.Len(t, d.Start, 1)
		require.Equal(t, Expire, d.Start[0].Job.Kind)
		s.History = append(s.History, done(Expire, d.Start[0].Due, full.Ended, full.Ended.Add(time.Second), repo.RunDone))
		s.Now = full.Ended.Add(2 * time.Second)
		require.Empty(t, Decide(jobs, s).Start)
	}
}

// Days of random jobs, durations and failures, with the service down now and
// then: no two runs of a repository overlap, no due time is served twice after
// success, none is lost unless a later one took its place.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var jobs []Job
		for _, r := range []string{"repo1", "repo2"} {
			for kind, text := range map[Kind]string{Full: "0 1 * * 0", Differential: "0 1 * * *", Incremental: "0 * * * *", Verify: "20 4 * * *"} {
				j := job(t, kind, text)
				j.Repo, j.Jitter = r, time.Duration(rng.IntN(2))*5*time.Minute
				jobs = append(jobs, j)
			}
			jobs = append(jobs, Job{Repo: r, Kind: Expire, AfterBackup: true})
		}
		now := begin
		s := State{Since: begin}
		for now.Before(begin.AddDate(0, 0, 10)) {
			for i, r := range s.History { // what ends now
				if r.Running() && !r.Due.IsZero() && rng.IntN(4) == 0 {
					s.History[i].Ended, s.History[i].Outcome = now, repo.RunDone
					if rng.IntN(5) == 0 {
						s.History[i].Outcome = repo.RunFailed
					}
				}
			}
			s.Now = now
			d := Decide(jobs, s)
			seen := map[string]bool{}
			for _, st := range d.Start {
				require.False(t, seen[st.Job.Repo])
				seen[st.Job.Repo] = true
				require.False(t, st.Due.After(now))
				for _, r := range s.History {
					if r.Repo == st.Job.Repo {
						require.False(t, r.Running(), "overlap")
						same := r.Kind == string(st.Job.Kind) && r.Due.Equal(st.Due)
						require.False(t, same && r.Outcome == repo.RunDone, "%s of %s runs twice", st.Job.Kind, st.Due)
					}
				}
				require.LessOrEqual(t, st.Attempt, 3)
				s.History = append(s.History, repo.JobRun{
					ID: fmt.Sprint(len(s.History)), Repo: st.Job.Repo, Kind: string(st.Job.Kind), Due: st.Due, Attempt: st.Attempt, Started: now,
				})
			}
			step := time.Duration(1+rng.IntN(10)) * time.Minute
			if rng.IntN(100) == 0 {
				step = time.Duration(rng.IntN(30)) * time.Hour // down
			}
			now = now.Add(step)
		}
		requireServed(t, seed, jobs, s, now)
	}
}

// requireServed: behind each due time, there is a run of the job, or of one that
// swallows it, that started at or after it.
func requireServed(t *testing.T, seed uint64, jobs []Job, s State, now time.Time) {
	for _, j := range jobs {
		if j.Schedule == nil {
			continue
		}
		for due := j.Schedule.Next(begin); due.Before(now.Add(-60 * time.Hour)); due = j.Schedule.Next(due) {
			served := false
			for _, r := range s.History {
				if r.Repo == j.Repo && !r.Started.Before(due) && (r.Kind == string(j.Kind) || Kind(r.Kind).swallows(j.Kind)) {
					served = true
				}
			}
			require.True(t, served, "seed %d: %s of %s", seed, j.Kind, due)
		}
	}
}
