#!/bin/sh
# Installs the Debian packages that tests, demo and benchmarks use. Does nothing,
# quickly, when all are there. Works as root, or through sudo.
#
#   scripts/install-packages.sh            all of them
#   scripts/install-packages.sh zstd age   only these
set -eu

packages=${*:-postgresql-15 zstd lz4 age xxhash pgbackrest hyperfine python3 etcd-server patroni iproute2 chromium-headless-shell prometheus systemd}

# A package counts as there when its program is: where somebody installed zstd
# from source, apt need not do it again.
there() {
    case $1 in
    postgresql-15) [ -x /usr/lib/postgresql/15/bin/postgres ] && [ -x /usr/lib/postgresql/15/bin/pg_verifybackup ] ;;
    etcd-server) command -v etcd >/dev/null 2>&1 ;;
    iproute2) command -v ip >/dev/null 2>&1 ;;
    xxhash) command -v xxh128sum >/dev/null 2>&1 ;;
    systemd) command -v systemd-analyze >/dev/null 2>&1 ;;
    prometheus) command -v promtool >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing=
for p in $packages; do
    there "$p" || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "not root and no sudo: install these packages:$missing" >&2; exit 1; }
    as_root="sudo -n"
fi
command -v apt-get >/dev/null || { echo "no apt-get here: install these packages:$missing" >&2; exit 1; }

# Debian makes and starts a server when it installs postgresql-15, unless it is
# told not to before. Ours are started by the tests, as an unprivileged user.
conf=/etc/postgresql-common/createcluster.conf
if [ ! -e "$conf" ]; then
    $as_root mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | $as_root tee "$conf" >/dev/null
fi

log=$(mktemp)
policy=
trap 'rm -f "$log"; [ -z "$policy" ] || $as_root rm -f "$policy"' EXIT

# The same goes for etcd, Patroni and Prometheus: not started now (policy-rc.d, which
# Debian's installer asks), nor at the next boot (a masked unit).
case $missing in
*etcd-server* | *patroni* | *prometheus*)
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    for unit in etcd patroni prometheus; do
        [ -e "/etc/systemd/system/$unit.service" ] || {
            $as_root mkdir -p /etc/systemd/system
            $as_root ln -s /dev/null "/etc/systemd/system/$unit.service"
        }
    done
    ;;
esac

run() {
    $as_root env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null || { cat "$log" >&2; exit 1; }
}
run apt-get update -qq -o Acquire::Retries=3
# shellcheck disable=SC2086 # the list is meant to be split
run apt-get install -y -qq -o Acquire::Retries=3 --no-install-recommends -o Dpkg::Options::=--force-confold $missing
