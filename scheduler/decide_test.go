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

// The clock is a year ahead for an hour, and then right again; or it goes back by
// seconds.
func TestClockMoved(t *testing.T) {
	jobs := []Job{job(t, Incremental, "0 * * * *"), job(t, Full, "0 1 * * 0")}
	s := State{Now: begin, Since: begin}
	ran := map[string]int{}
	pass := func(minutes int, outcome repo.RunOutcome) {
		for range minutes {
			s.Now = s.Now.Add(time.Minute)
			for _, st := range Decide(jobs, s).Start {
				ran[string(st.Job.Kind)]++
				run := done(st.Job.Kind, st.Due, s.Now, s.Now.Add(30*time.Second), outcome)
				run.Attempt = st.Attempt
				s.History = append(s.History, run)
			}
		}
	}
	pass(180, repo.RunDone) // Sunday, 00:30 to 03:30
	require.Equal(t, map[string]int{"full": 1, "incremental": 2}, ran)
	right := s.Now

	s.Now = s.Now.AddDate(1, 0, 0)
	pass(60, repo.RunFailed)
	require.Equal(t, 1+3, ran["full"], "what was missed once, and its attempts")
	s.Now = right.Add(time.Hour)
	clear(ran)
	pass(180, repo.RunDone) // 04:30 to 07:30
	require.Equal(t, map[string]int{"incremental": 4}, ran, "04:00 is caught up; 05:00, 06:00, 07:00")

	// Back and forth around a due time: once.
	clear(ran)
	s.Now = s.Now.Add(30*time.Minute - time.Second).Truncate(time.Hour).Add(time.Hour)
	for range 5 {
		pass(1, repo.RunDone)
		s.Now = s.Now.Add(-3 * time.Minute)
		require.Empty(t, Decide(jobs, s).Start)
		s.Now = s.Now.Add(2 * time.Minute)
	}
	require.Equal(t, 1, ran["incremental"])
	running := repo.JobRun{Repo: "repo1", Kind: "full", Started: s.Now.AddDate(1, 0, 0), Due: s.Now, Attempt: 1}
	s.History, s.Now = append(s.History, running), s.Now.Add(2*time.Hour)
	require.Empty(t, Decide(jobs, s).Start, "what runs, runs")
}

// Failed attempts are bounded, their pauses double up to an hour, and a later due
// time begins anew.
func TestRetriesAreBounded(t *testing.T) {
	j := job(t, Full, "0 1 * * *")
	j.Attempts, j.Backoff = 9, 4*time.Minute
	s := State{Now: begin, Since: begin}
	var starts []time.Time
	for s.Now.Before(begin.Add(24*time.Hour + 32*time.Minute)) {
		s.Now = s.Now.Add(time.Minute)
		for _, st := range Decide([]Job{j}, s).Start {
			starts = append(starts, s.Now)
			require.Equal(t, (len(starts)-1)%9+1, st.Attempt)
			run := done(Full, st.Due, s.Now, s.Now, repo.RunFailed)
			run.Attempt = st.Attempt
			s.History = append(s.History, run)
		}
	}
	require.Len(t, starts, 10, "nine of the first day, and the first of the next")
	for i, pause := range []time.Duration{4, 8, 16, 32, 60, 60, 60, 60} {
		require.Equal(t, pause*time.Minute, starts[i+1].Sub(starts[i]))
	}
}

// Jitter is the same whoever computes it, within its bound, and not the same for
// all repositories.
func TestJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for _, name := range []string{"repo1", "repo2", "repo3", "repo4"} {
		j := job(t, Full, "0 1 * * *")
		j.Repo, j.Jitter = name, 10*time.Minute
		due := begin.Add(30 * time.Minute)
		d := jitter(j, due)
		require.Equal(t, d, jitter(j, due))
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.Less(t, d, j.Jitter)
		seen[d] = true
		s := State{Since: begin, Now: due.Add(d - time.Second)}
		if d > time.Second {
			require.Empty(t, Decide([]Job{j}, s).Start)
			require.Equal(t, due.Add(d), Decide([]Job{j}, s).Next)
		}
		s.Now = due.Add(d)
		require.Equal(t, due, Decide([]Job{j}, s).Start[0].Due)
	}
	require.Greater(t, len(seen), 1)
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

	// Backups that are always due do not keep it from its turn.
	jobs = append(jobs, job(t, Incremental, "* * * * *"))
	s := State{Now: one, Since: begin}
	var kinds []Kind
	for range 6 {
		d := Decide(jobs, s)
		require.Len(t, d.Start, 1)
		kinds = append(kinds, d.Start[0].Job.Kind)
		end := s.Now.Add(2 * time.Minute)
		s.History, s.Now = append(s.History, done(d.Start[0].Job.Kind, d.Start[0].Due, s.Now, end, repo.RunDone)), end
	}
	require.Equal(t, []Kind{Full, Expire, Incremental, Expire, Incremental, Expire}, kinds)
}

// Backups that are always due do not keep a verification from its turn.
func TestPatience(t *testing.T) {
	jobs := []Job{job(t, Incremental, "* * * * *"), job(t, Verify, "20 4 * * *")}
	s := State{Now: begin.Add(3 * time.Hour), Since: begin}
	var kinds []Kind
	for s.Now.Before(begin.Add(29 * time.Hour)) {
		d := Decide(jobs, s)
		require.Len(t, d.Start, 1)
		if !s.Now.Before(begin.Add(230*time.Minute)) && len(kinds) < 6 { // from 04:20 on
			kinds = append(kinds, d.Start[0].Job.Kind)
		}
		end := s.Now.Add(10 * time.Minute)
		s.History, s.Now = append(s.History, done(d.Start[0].Job.Kind, d.Start[0].Due, s.Now, end, repo.RunDone)), end
	}
	require.Equal(t, []Kind{Incremental, Incremental, Incremental, Verify, Incremental, Incremental}, kinds)
	verified := 0
	for _, r := range s.History {
		if r.Kind == string(Verify) {
			verified++
		}
	}
	require.Equal(t, 2, verified, "once a day")
}

// Days of random jobs, durations and failures, with the service down now and
// then: no two runs of a repository overlap, no due time is served twice after
// success, none is lost unless a later one took its place; half a day after the
// last trouble all has been made up for.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var jobs []Job
		for _, r := range []string{"repo1", "repo2"} {
			for _, k := range []struct {
				kind Kind
				text string
			}{{Full, "0 1 * * 0"}, {Differential, "0 1 * * *"}, {Incremental, "0 * * * *"}, {Verify, "20 4 * * *"}} {
				j := job(t, k.kind, k.text)
				j.Repo, j.Jitter = r, time.Duration(rng.IntN(2))*5*time.Minute
				jobs = append(jobs, j)
			}
			jobs = append(jobs, Job{Repo: r, Kind: Expire, AfterBackup: true})
		}
		now := begin
		s := State{Since: begin}
		calm := begin.AddDate(0, 0, 10)
		for now.Before(calm.Add(12 * time.Hour)) {
			for i, r := range s.History { // what ends now
				if r.Running() && !r.Due.IsZero() && rng.IntN(4) == 0 {
					s.History[i].Ended, s.History[i].Outcome = now, repo.RunDone
					if now.Before(calm) && rng.IntN(5) == 0 {
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
			if now.Before(calm) && rng.IntN(100) == 0 {
				step = time.Duration(rng.IntN(30)) * time.Hour // down
				calm = calm.Add(max(0, now.Add(step).Sub(calm)))
			}
			now = now.Add(step)
		}
		requireServed(t, seed, jobs, s, calm)
	}
}

// requireServed: behind each due time before end, there is a run of the job, or of one that
// swallows it, that started at or after it.
func requireServed(t *testing.T, seed uint64, jobs []Job, s State, end time.Time) {
	for _, j := range jobs {
		if j.Schedule == nil {
			continue
		}
		for due := j.Schedule.Next(begin); due.Before(end); due = j.Schedule.Next(due) {
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
