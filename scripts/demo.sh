#!/bin/bash
# make demo: installs what is missing, then shows the main job on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-packages.sh postgresql-15
scripts/install-stores.sh versitygw
exec "${GO:-go}" run ./integration/demo "$@"
