#!/bin/sh
# Puts PostgreSQL 18's programs that the server of scripts/install-postgres.sh
# comes without beside it. They are Debian's, of the release after trixie,
# unpacked with the libraries that they need into a directory of their own:
# nothing of the system is touched. apt checks the signatures.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.cache/postgres
major=18
suite=forky
programs="pg_dump pg_restore psql pg_amcheck pg_verifybackup pg_basebackup pg_controldata pg_isready pg_rewind"

mkdir -p "$cache"
exec 8>"$cache/.lock-programs"
flock 8 # of two at once the second finds the first one's work done
missing=
for p in $programs; do
    [ -x "$cache/$major/bin/$p" ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || { echo "no apt-get here: put$missing of PostgreSQL $major into $cache/$major/bin" >&2; exit 1; }

# The mirror that this machine uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1)
[ -n "$mirror" ] || { echo "no Debian mirror is configured here: put$missing of PostgreSQL $major into $cache/$major/bin" >&2; exit 1; }

work=$(mktemp -d "$cache/programs.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/root"
echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
# An apt that knows of no installed package fetches all that the programs need.
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::State::status=/dev/null \
        -o Dir::Cache::archives="$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
        -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o Acquire::Languages=none "$@" >"$work/apt.log" 2>&1 ||
        { cat "$work/apt.log" >&2; exit 1; }
}
apt update
apt install -y --download-only "postgresql-client-$major"
(cd "$work/archives" && apt download "postgresql-$major") # of whose libraries these programs need no more
for deb in "$work"/archives/lib*.deb "$work"/archives/zlib1g_*.deb "$work/archives/postgresql-client-$major"_*.deb "$work/archives/postgresql-$major"_*.deb; do
    dpkg -x "$deb" "$work/root"
done

lib=usr/lib/x86_64-linux-gnu
rm -rf "${cache:?}/programs-$major"
chmod -R a+rX "$work/root"
mv "$work/root" "$cache/programs-$major"
for p in $programs; do
    # Their own loader, with their own libc.
    cat >"$work/$p" <<END
#!/bin/sh
exec "$cache/programs-$major/$lib/ld-linux-x86-64.so.2" --argv0 "\$0" --library-path "$cache/programs-$major/$lib" "$cache/programs-$major/usr/lib/postgresql/$major/bin/$p" "\$@"
END
    chmod 755 "$work/$p"
    "$work/$p" --version | grep -q "(PostgreSQL) $major\." || { echo "$p of PostgreSQL $major does not run" >&2; exit 1; }
    mv "$work/$p" "$cache/$major/bin/$p"
done
