#!/bin/sh
# Puts kube-apiserver into .cache/bin of this checkout, for the tests of what
# walkeep says to Kubernetes, and etcd where Debian has it. Built from the modules
# that tools/kube/go.mod names, which takes six minutes on two cores. Does nothing,
# quickly, when that version is there.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/.cache/bin
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$root/tools/kube/go.mod")
[ -n "$version" ] || { echo "$0: tools/kube/go.mod names no version of k8s.io/kubernetes" >&2; exit 1; }

"$root/scripts/install-packages.sh" etcd-server

there() {
    [ -x "$bin/kube-apiserver" ] && go version -m "$bin/kube-apiserver" 2>/dev/null | awk -v version="$version" '
        $1 == "mod" && $2 == "k8s.io/kubernetes" { found = $3 == version }
        END { exit !found }'
}

there && exit 0
mkdir -p "$bin"
exec 9>"$root/.cache/kube.lock"
flock 9 # of two at once the second finds the first one's work done
there && exit 0
echo "install kube-apiserver $version: this takes minutes" >&2
# Under another name first: a server that is running keeps its file, and a build
# that is killed leaves no half program.
work=$(mktemp -d "$bin/install.XXXXXX")
trap 'rm -rf "$work"' EXIT
minor=${version#v1.}
(
    cd "$root/tools/kube" &&
        CGO_ENABLED=0 go build -p 2 -trimpath -buildvcs=false -o "$work/kube-apiserver" \
            -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" \
            k8s.io/kubernetes/cmd/kube-apiserver
) >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
mv "$work/kube-apiserver" "$bin/kube-apiserver"
