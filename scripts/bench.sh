#!/bin/bash
# make bench: walkeep and pgBackRest side by side, ratios from one run. Needs
# about 25 GB of disk below TMPDIR. BENCHFLAGS makes it smaller:
#   make bench BENCHFLAGS='-scale 50 -text-rows 2000000 -rounds 1 -files 100000'
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${GO:-go}" run ./integration/bench ${BENCHFLAGS:-}
