package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal/waltest"
)

// TestWALScripts runs terminal sessions of `walkeep wal`:
// testdata/walscript/*.txtar. Besides the commands of TestScripts there is
//
//	node DIR STATE ID   a data directory with WAL: segment 3 of a cluster with
//	                    this system identifier, complete, and a history file
func TestWALScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/walscript",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WALKEEP_CONFIG", e.WorkDir+"/walkeep.yaml")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fill":   fillFiles,
			"damage": damageFile,
			"exits":  runExits,
			"node":   makeNode,
		},
	})
}

func makeNode(ts *testscript.TestScript, _ bool, args []string) {
	id, err := pg.ParseSystemID(args[2])
	ts.Check(err)
	state := map[string]pg.ControlState{"primary": pg.StateProduction, "standby": pg.StateArchiveRecovery}[args[1]]
	dir := ts.MkAbs(args[0])
	s := waltest.New(id)
	ts.Check(waltest.WriteControl(dir, waltest.Control(id, state, 1, s.Size)))
	s.Commit(700, time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	s.Fill(0)
	name, b := s.Segment(0)
	for name, b := range map[string][]byte{string(name): b, "00000002.history": []byte("1\t0/3000000\tno recovery target specified\n")} {
		ts.Check(os.WriteFile(filepath.Join(dir, "pg_wal", name), b, 0o600))
	}
}
