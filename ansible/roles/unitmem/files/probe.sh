#!/bin/sh
# Tell what the role has to know of a target, a KEY=VALUE a line. It only reads, and runs in check mode too.
#
#   probe.sh VENV PYTHONS PACKAGES METRICS    where the wheel goes, who may run it, what may be installed (lists of words),
#                                             and where metrics go (may be empty)
#
# It is run by the shell alone, as one command: it works where there is no Python, and is quick where there is.
set -u
venv=$1

lines() { tr '\n' ' ' | sed 's/ *$//'; }
modified() { stat -L -c %Y "$@" 2>/dev/null | sort -n | tail -n 1; } # of the newest, in seconds; empty if there is none

# --- the machine
[ ! -r /etc/os-release ] || sed -n 's/["'\'']//g; /^\(ID\|ID_LIKE\|VERSION_ID\)=/p' /etc/os-release
echo "booted=$([ -d /run/systemd/system ] && echo yes || echo no)"
echo "systemd=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
echo "cgroup=$(stat -f -c %T /sys/fs/cgroup 2>/dev/null)"
echo "controllers=$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null)"
# with psi=0 the file is there and can't be opened
echo "psi=$(cat /proc/pressure/memory >/dev/null 2>&1 && echo yes || echo no)"
for python in $2; do
    version=$(basename "$(readlink -e "$python")")
    case $version in
        '') continue ;;
        python3.*) version=${version#python} ;; # as distributions name it, which saves starting it
        *) version=$("$python" -ISc 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue ;;
    esac
    echo "python:$python=$version"
done

# --- what is installed
# shellcheck disable=SC2016,SC2086 # the variables are dpkg-query's, the packages words
dpkg-query -W -f '${db:Status-Status} package:${Package}=${Version}\n' $3 2>/dev/null | sed -n 's/^installed //p'
echo "venv=$([ ! -x "$venv/bin/python" ] || sed -n 's/^version = \([0-9]*\.[0-9]*\).*/\1/p' "$venv/pyvenv.cfg")"
# Nobody else's environment is to be replaced or removed: one is ours if it has unitmem, or nothing yet but what new ones have.
is_ours() {
    [ -e "$venv/pyvenv.cfg" ] && {
        [ -e "$venv/installed" ] || [ -e "$venv/bin/unitmem" ] ||
            ! find "$venv"/lib/python3*/site-packages -mindepth 1 -maxdepth 1 |
            grep -Eqv '/(pip|setuptools|wheel|pkg_resources|_distutils_hack|distutils-precedence)[^/]*$'
    }
}
if is_ours; then
    echo "place=venv"
elif [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
    echo "place=other"
else
    echo "place=free"
fi
echo "observer=$(sed -n 's/^unitmem-observe:.*/yes/p' /etc/passwd)"
echo "wheel=$(cat "$venv/installed" 2>/dev/null)"
echo "metrics=$([ ! -d "$4" ] || stat -c %U "$4")"
echo "link=$(readlink /usr/local/bin/unitmem)"
for path in "$venv/bin/unitmem" /usr/bin/unitmem /usr/local/bin/unitmem /etc/unitmem /var/lib/unitmem /run/unitmem \
    /etc/systemd/system/unitmem.slice /etc/systemd/system/unitmem@.service /lib/systemd/system/unitmem@.service \
    /etc/systemd/system/unitmem-observe@.service /etc/systemd/user/unitmem@.service /var/lib/unitmem-observe \
    /var/lib/private/unitmem-observe /etc/systemd/system/unitmem@.service.d; do
    [ ! -e "$path" ] && [ ! -L "$path" ] || echo "there:$path=yes"
done
set -- /etc/systemd/system/unitmem.slice /etc/systemd/system/unitmem@*.service \
    /etc/systemd/system/unitmem-observe@.service /etc/systemd/user/unitmem@.service \
    /etc/systemd/system/unitmem@*.service.d/*.conf /etc/unitmem/*.yaml
sha1sum "$@" 2>/dev/null | sed 's/^\([0-9a-f]*\)  \(.*\)/sha1:\2=\1/'
stat -c 'mode:%n=%a %U %G' /etc/unitmem "$@" 2>/dev/null

# --- the instances: names, as in unitmem@NAME.service
names() { # PREFIX SUFFIX PATH...: what the names of those that exist have between the two
    prefix=$1 suffix=$2
    shift 2
    for path in "$@"; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        found=${path##*/} found=${found#"$prefix"}
        echo "${found%"$suffix"}"
    done | sort -u | lines
}
echo "files=$(names '' .yaml /etc/unitmem/*.yaml)"
echo "states=$(names '' '' /var/lib/unitmem/*)"
echo "drop_ins=$(names unitmem@ .service.d /etc/systemd/system/unitmem@*.service.d)"
echo "enabled=$(names unitmem@ .service /etc/systemd/system/*.wants/unitmem@*.service)"
echo "observers=$(names unitmem-observe@ .service /etc/systemd/system/*.wants/unitmem-observe@*.service)"

# What runs and is older than what it was made from: a run of the role that was interrupted left it so, or a person.
active='' unsettled='' failed='' stale_policies='' stale_units='' slice=''
tell() { # once a unit, when all its properties are known
    name=${id#unitmem@} name=${name%.service}
    case $id:$state in
        unitmem.slice:*) slice=$state ;;
        *: | *:inactive) ;;
        *:failed) failed="$failed $name" ;;
        # on its way, or between two attempts that fail: it neither runs nor can be reloaded
        *:activating | *:deactivating) unsettled="$unsettled $name" ;;
        *)
            active="$active $name"
            file=$(modified "/etc/unitmem/$name.yaml")
            [ "${file:-0}" -le "${changed:-0}" ] || stale_policies="$stale_policies $name"
            code=$(modified "$venv/installed" /var/lib/dpkg/info/unitmem.list /etc/systemd/system/unitmem@.service \
                /etc/systemd/system/unitmem@.service.d/*.conf "/etc/systemd/system/unitmem@$name.service.d"/*.conf)
            [ "${code:-0}" -le "${started:-0}" ] || stale_units="$stale_units $name"
            ;;
    esac
}
id='' state='' changed='' started=''
while IFS='=' read -r key value; do
    case $key in
        Id) id=$value ;;
        ActiveState) state=$value ;;
        StateChangeTimestamp) changed=${value#@} ;; # a reload is such a change
        ExecMainStartTimestamp) started=${value#@} ;;
        '') [ -z "$id" ] || tell; id='' state='' changed='' started='' ;;
    esac
done <<EOF
$(systemctl show --timestamp=unix --property Id,ActiveState,StateChangeTimestamp,ExecMainStartTimestamp \
    unitmem.slice 'unitmem@*.service' 2>/dev/null)

EOF
echo "active=${active# }"
echo "unsettled=${unsettled# }"
echo "failed=${failed# }"
echo "stale_policies=${stale_policies# }"
echo "stale_units=${stale_units# }"
echo "slice=$slice"
