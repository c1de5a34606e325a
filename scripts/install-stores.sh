#!/bin/sh
# Puts the object store servers that tests, demo and benchmarks use into .cache
# of this checkout: versitygw (S3) and fake-gcs-server (GCS) into .cache/bin,
# Azurite (Azure) into .cache/npm. Does nothing, quickly, for what is already
# there in the right version.
#
#   scripts/install-stores.sh                  all
#   scripts/install-stores.sh versitygw        only that one
set -eu

versitygw=github.com/versity/versitygw/cmd/versitygw@v1.8.0
fake_gcs_server=github.com/fsouza/fake-gcs-server@v1.56.1
azurite=3.37.0

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/.cache/bin
npm=$root/.cache/npm
servers=${*:-versitygw fake-gcs-server azurite}

# there NAME PACKAGE@VERSION: the program was built from that version.
there() {
    [ -x "$bin/$1" ] && go version -m "$bin/$1" 2>/dev/null | awk -v path="${2%@*}" -v version="${2#*@}" '
        $1 == "path" { right = $2 == path }
        $1 == "mod" { found = right && $3 == version }
        END { exit !found }'
}

there_azurite() {
    [ -x "$npm/node_modules/.bin/azurite-blob" ] &&
        [ "$(sed -n 's/^ *"version": *"\(.*\)".*/\1/p' "$npm/node_modules/azurite/package.json")" = "$azurite" ]
}

install_go() {
    there "$1" "$2" && return
    echo "install $1 ${2#*@}" >&2
    # Into a directory of its own first: of two runs at once neither sees half
    # a program, and a server that is running keeps its file.
    work=$(mktemp -d "$bin/install.XXXXXX")
    if ! (cd "$root" && GOBIN=$work CGO_ENABLED=0 go install "$2" >"$work/log" 2>&1); then
        cat "$work/log" >&2
        rm -rf "$work"
        exit 1
    fi
    mv "$work/$1" "$bin/$1"
    rm -rf "$work"
}

install_azurite() {
    there_azurite && return
    command -v npm >/dev/null || "$root/scripts/install-packages.sh" npm
    echo "install azurite $azurite" >&2
    mkdir -p "$npm"
    npm install --prefix "$npm" --no-package-lock --no-audit --no-fund --loglevel=error "azurite@$azurite" >"$npm/log" 2>&1 || {
        cat "$npm/log" >&2
        exit 1
    }
}

mkdir -p "$bin"
exec 9>"$root/.cache/stores.lock"
flock 9 # of two at once the second finds the first one's work done
for server in $servers; do
    case $server in
    versitygw) install_go versitygw "$versitygw" ;;
    fake-gcs-server) install_go fake-gcs-server "$fake_gcs_server" ;;
    azurite) install_azurite ;;
    *) echo "$0 does not know $server" >&2; exit 2 ;;
    esac
done
