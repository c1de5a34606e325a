#!/bin/bash
# make chaos: the failover proof; -h lists its flags. Needs root, for namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${GO:-go}" run ./integration/chaos "$@"
