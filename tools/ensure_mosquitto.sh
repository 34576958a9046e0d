#!/usr/bin/env bash
# Make sure that this machine has a mosquitto broker for the tests, and print where it is.
#
# Tests start brokers of their own, on ports of their own. So where this has to install Debian's package, the system
# service that comes with it is neither started now nor at the next boot.
set -euo pipefail

# Debian keeps the broker in /usr/sbin, Homebrew in its own sbin: neither has to be on PATH.
PATH=$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

check_version() {
    local version
    version=$(mosquitto -h 2>/dev/null | sed -n 's/^mosquitto version //p' || true)
    case $version in
        [01].*) fail "mosquitto $version is too old for the tests, which speak MQTT 5: install version 2.0 or newer." ;;
    esac
}

install_package() {
    local as_root=() policy=/usr/sbin/policy-rc.d
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            fail "mosquitto is missing and installing it needs root: run 'apt-get install mosquitto' as root."
        as_root=(sudo)
        [ -t 0 ] || as_root=(sudo -n) # nobody is there to type a password
    fi
    # Debian asks this file before it starts a service; 101 says no.
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        # shellcheck disable=SC2064 # expand now: the variables are local
        trap "${as_root[*]} rm -f $policy" EXIT
        "${as_root[@]}" chmod 755 "$policy"
    fi
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    {
        "${apt[@]}" install -y --no-install-recommends mosquitto ||
            { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends mosquitto; }
    } </dev/null >&2 ||
        fail "mosquitto is missing and apt-get could not install it: see its words above."
    "${as_root[@]}" systemctl disable mosquitto >/dev/null 2>&1 || true
}

if ! command -v mosquitto >/dev/null; then
    command -v apt-get >/dev/null ||
        fail "mosquitto is missing and this machine has no apt-get to install it with:" \
            "install mosquitto 2.0 or newer and run this again."
    echo "Installing mosquitto for the tests, its system service left off ..." >&2
    install_package
fi
check_version
command -v mosquitto
