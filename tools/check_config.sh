#!/usr/bin/env bash
# Check what is configuration rather than code: broker files, compose file, systemd units, shell scripts.
#
# Quick, and without pytest: it starts every broker configuration, asks systemd about every unit, and reads every
# script. What the files promise to each other, and attacks on the broker, are in tests/broker/test_broker_config*.py
# and test_deploy.py.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/usr/local/sbin:.venv/bin
unset CDPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

check() {
    local name=$1 status
    shift
    # Not as the condition of an `if`: in there bash ignores -e, and only the last command would count.
    set +e
    (
        set -e
        "$@"
    ) >"$work/said" 2>&1
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        printf '%-8s %s\n' ok "$name"
    else
        printf '%-8s %s\n' FAILED "$name"
        sed 's/^/         /' "$work/said"
        failed+=("$name")
    fi
}

skip() {
    printf '%-8s %s\n' skipped "$1"
}

# --- broker

# A folder as broker_config/README.md says to make it, certificates and accounts included.
provision() {
    cp -r broker_config "$work/broker"
    cd "$work/broker"
    for example in extra/*.example; do cp "$example" "${example%.example}"; done
    ./make_certificates.sh broker broker.example.org
    ./make_certificates.sh device kitchen
    ./add_account.sh aggregator garage
    mkdir -p data
}

free_ports() {
    python3 - "$1" <<'END'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))
END
}

# on_free_ports FILE...: each listener on a port of its own, on loopback.
on_free_ports() {
    local ports file port
    read -ra ports < <(free_ports "$(cat "$@" | grep -c '^listener')")
    for file; do
        while grep -q '^listener [0-9]*\( 127.0.0.1\)\?$' "$file"; do
            port=${ports[0]}
            ports=("${ports[@]:1}")
            sed -i "0,/^listener [0-9]*\( 127.0.0.1\)\?\$/s//listener  $port 127.0.0.1/" "$file"
        done
    done
}

# One second is enough to read everything, bind every port and load every key.
starts() {
    local file=$1 status=0
    cd "$work/broker"
    local copies=("$file" extra/*.conf)
    on_free_ports "${copies[@]}"
    [ "$(id -u)" -ne 0 ] || echo "user root" >>"$file"
    timeout --preserve-status 1 mosquitto -c "$file" || status=$?
    [ "$status" -eq 0 ]
}

# --- systemd

# The programs that a unit names are not on this machine: true takes their place.
systemd_accepts() {
    local unit=$1 folder said
    folder=$(mktemp -d -p "$work")
    if [[ $unit == *.service.d/* ]]; then
        local base
        base=$(basename "$(dirname "$unit")" .d)
        mkdir "$folder/$base.d"
        sed 's|^\(ExecStart=\)/[^ ]*|\1/bin/true|' "$unit" >"$folder/$base.d/$(basename "$unit")"
        printf '[Service]\nType=notify\nExecStart=/bin/true\n' >"$folder/$base"
        unit=$folder/$base
    else
        sed 's|^\(ExecStart=\)/[^ ]*|\1/bin/true|' "$unit" >"$folder/$(basename "$unit")"
        unit=$folder/$(basename "$unit")
    fi
    # It warns of an unknown key and still exits with 0.
    said=$(systemd-analyze verify --man=no "$unit" 2>&1) || return 1
    [ -z "$said" ] || { echo "$said" && return 1; }
}

# --- scripts

runnable() {
    [ -x "$1" ] || { echo "$1 is not executable: chmod +x" && return 1; }
    bash -n "$1"
}

if command -v mosquitto >/dev/null; then
    check "broker_config: its scripts make a broker's folder" provision
    for file in broker_config/*.conf; do
        check "$file starts" starts "$(basename "$file")"
    done
else
    skip "broker_config: mosquitto is not installed"
fi

if command -v yamllint >/dev/null; then
    check "deploy/docker-compose.yml" yamllint --strict deploy/docker-compose.yml
else
    skip "deploy/docker-compose.yml: yamllint is not installed"
fi

while read -r unit; do
    if command -v systemd-analyze >/dev/null; then
        check "$unit" systemd_accepts "$unit"
    else
        skip "$unit: systemd-analyze is not installed"
    fi
done < <(find deploy devices -name '*.service' -o -path '*.service.d/*.conf' | sort)

mapfile -t scripts < <(
    {
        find broker_config deploy devices tools .ci -name '*.sh'
        echo .ci/run
    } | sort
)
for script in "${scripts[@]}"; do
    check "$script" runnable "$script"
done
if command -v shellcheck >/dev/null; then
    check "shellcheck" shellcheck --external-sources "${scripts[@]}"
else
    skip "shellcheck: not installed"
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf '\n%d failed\n' "${#failed[@]}" >&2
    exit 1
fi
