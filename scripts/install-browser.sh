#!/bin/sh
# What the test of the web page drives: Debian's headless Chromium, and
# playwright-core in .cache/browser of this checkout. Does nothing, quickly, for
# what is already there in the right version.
set -eu

playwright=1.65.1

root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/.cache/browser

"$root/scripts/install-packages.sh" chromium-headless-shell npm
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9 # of two at once the second finds the first one's work done
package=$dir/node_modules/playwright-core/package.json
[ "$(sed -n 's/^ *"version": *"\(.*\)".*/\1/p' "$package" 2>/dev/null)" != "$playwright" ] || exit 0
echo "install playwright-core $playwright" >&2
npm install --prefix "$dir" --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error "playwright-core@$playwright" >"$dir/log" 2>&1 || {
    cat "$dir/log" >&2
    exit 1
}
