package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write golden sections of the scripts again")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"walkeep": main})
}

// TestScripts runs terminal sessions: testdata/script/*.txtar. Besides the
// usual commands there are
//
//	fill FILE...    replace $WORK in files: configurations need absolute paths
//	sample REPO...  store the sample cluster in these repositories
//	damage FILE     flip a bit in the middle of a file
//	exits CODE COMMAND...  run a command that must exit with this status
//	service [damaged]  start a service that shows a sample
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WALKEEP_CONFIG", e.WorkDir+"/walkeep.yaml")
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fill":    fillFiles,
			"sample":  storeSample,
			"damage":  damageFile,
			"exits":   runExits,
			"service": startService,
		},
	})
}

func fillFiles(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := strings.ReplaceAll(ts.ReadFile(name), "$WORK", ts.Getenv("WORK"))
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

func damageFile(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(name, data, 0o600))
}

func runExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("exit status is %s, not %s", code, args[0])
	}
}
