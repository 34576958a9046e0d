#!/usr/bin/env bash
# Make a Raspberry Pi a fedmq device. Run it again after an update: what you have configured stays.
set -euo pipefail

readonly name_pattern='^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'
readonly address_pattern='^(mqtts?|wss?)://[A-Za-z0-9.:/_-]+$'
readonly keras_memory_kb=900000

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
engine=
name=
broker=
source=$here/../..
root=${DESTDIR:-}

usage() {
    cat <<'END'
usage: sudo ./install.sh -n NAME -b ADDRESS [-e litert|keras|numpy] [-s SOURCE]

  -n NAME     this device's name, which is also its account on the broker
  -b ADDRESS  the broker, such as mqtts://broker.example.org:8884
  -e ENGINE   litert trains the Keras model without TensorFlow; keras with it (Pi 3, 4, 5); numpy trains a model of its
              own, where there is no LiteRT; default: litert
  -s SOURCE   fedmq: a checkout, a wheel, or a name for pip (default: the checkout that this script is in)

Installs fedmq into /opt/fedmq, its configuration into /etc/fedmq and a systemd unit. A second run updates fedmq and
the unit, and leaves /etc/fedmq/device.toml as it is; -n, -b and -e are needed only where that file is not there yet.

With DESTDIR in the environment everything goes below that folder, and nothing outside it is touched.
END
}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

misuse() {
    printf 'install.sh: %s\n\n' "$*" >&2
    usage >&2
    exit 2
}

check_machine() {
    local machine packages
    machine=$(uname -m)
    [ "$machine" = aarch64 ] ||
        fail "this is a machine of type $machine: fedmq's packages exist for 64-bit ARM (aarch64);" \
            "install the 64-bit Raspberry Pi OS"
    packages=$(dpkg --print-architecture)
    [ "$packages" = arm64 ] ||
        fail "the kernel is 64-bit, but the system's programs are $packages: install the 64-bit Raspberry Pi OS"
}

check_python() {
    local version
    command -v python3 >/dev/null || fail "python3 is missing: apt install python3 python3-venv"
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python $version is too old, 3.11 is needed: update to Raspberry Pi OS 12 (bookworm) or newer"
    python3 -c 'import ensurepip, venv' 2>/dev/null || fail "Python's venv module is missing: apt install python3-venv"
    [ "$engine" != keras ] || python3 -c 'import sys; sys.exit(sys.version_info >= (3, 14))' ||
        fail "TensorFlow has no package for Python $version yet: take -e litert"
}

check_memory() {
    local kilobytes
    kilobytes=$(awk '/^MemTotal:/ {print $2}' "${MEMINFO:-/proc/meminfo}")
    [ "$engine" != keras ] || [ "$kilobytes" -ge "$keras_memory_kb" ] ||
        fail "this machine has $((kilobytes / 1024)) MB of memory, TensorFlow needs about 900: take -e litert"
}

# What an earlier run chose, where there was one.
recall() {
    local settings=$root/etc/fedmq/device.toml
    [ -e "$settings" ] || return 0
    [ -n "$engine" ] || engine=$(sed -n 's/^kind = "\(.*\)"$/\1/p' "$settings")
}

check_wishes() {
    [ -e "$root/etc/fedmq/device.toml" ] || {
        [ -n "$name" ] || misuse "-n NAME is missing"
        [ -n "$broker" ] || misuse "-b ADDRESS is missing"
    }
    engine=${engine:-litert}
    case $engine in
        litert | keras | numpy) ;;
        *) misuse "-e is litert, keras or numpy, not '$engine'" ;;
    esac
    [ -z "$name" ] || [[ $name =~ $name_pattern ]] ||
        misuse "'$name' cannot be a device's name: take 1 to 64 letters, digits, dots, dashes or underscores," \
            "beginning with a letter or a digit"
    [ -z "$broker" ] || [[ $broker =~ $address_pattern ]] ||
        misuse "'$broker' is no broker's address: write it like mqtts://broker.example.org:8884"
}

make_user() {
    [ -z "$root" ] || return 0
    getent passwd fedmq >/dev/null ||
        useradd --system --user-group --home-dir /var/lib/fedmq --shell /usr/sbin/nologin fedmq
}

# own OWNER MODE PATH...: as root of a real system; a DESTDIR keeps its maker as owner.
own() {
    local owner=$1 mode=$2
    shift 2
    chmod "$mode" "$@"
    [ -n "$root" ] || chown "$owner" "$@"
}

make_folders() {
    install -d "$root/opt" "$root/etc/fedmq" "$root/etc/systemd/system" "$root/var/lib/fedmq/recordings"
    own root:fedmq 750 "$root/etc/fedmq"
    own fedmq:fedmq 750 "$root/var/lib/fedmq"
    own fedmq:fedmq 2770 "$root/var/lib/fedmq/recordings"
}

install_fedmq() {
    local wanted=$source
    [ ! -e "$source" ] || wanted=$(realpath "$source")
    case $engine in
        litert) wanted="${wanted}[litert]" ;;
        keras) wanted="${wanted}[tensorflow]" ;;
    esac
    [ -x "$root/opt/fedmq/bin/python" ] || python3 -m venv "$root/opt/fedmq"
    echo "installing $wanted into $root/opt/fedmq ..."
    "$root/opt/fedmq/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$wanted"
    "$root/opt/fedmq/bin/fedmq" --version
}

install_configuration() {
    local folder=$root/etc/fedmq
    install -m 644 "$here/recordings.py" "$here/sensor.py" "$here/sensor.tflite" "$here/sensor_numpy.py" "$folder"
    install -m 644 "$here/fedmq-device.service" "$root/etc/systemd/system"
    if [ -e "$folder/device.toml" ]; then
        echo "$folder/device.toml stays as it is"
        return
    fi
    sed -e "s|\"pi-01\"|\"$name\"|" -e "s|^address = .*|address = \"$broker\"|" "$here/device.toml" >"$folder/device.toml"
    sed -i -e "s|^kind = .*|kind = \"$engine\"|" "$folder/device.toml"
    [ "$engine" != numpy ] || sed -i -e 's|^module = .*|module = "sensor_numpy.py"|' "$folder/device.toml"
    own root:fedmq 640 "$folder/device.toml"
    echo "wrote $folder/device.toml"
}

finish() {
    local missing=() file
    for file in ca.pem password; do
        if [ -e "$root/etc/fedmq/$file" ]; then
            own root:fedmq 640 "$root/etc/fedmq/$file"
        else
            missing+=("/etc/fedmq/$file")
        fi
    done
    [ -n "$root" ] || systemctl daemon-reload
    if [ ${#missing[@]} -gt 0 ]; then
        echo "still missing: ${missing[*]}; bring them from where the broker's certificates and accounts are made," \
            "then run this again"
    fi
    echo "to start it now and at every boot: systemctl enable --now fedmq-device"
    echo "to see what it does:               journalctl -fu fedmq-device"
}

while getopts n:b:e:s:h option; do
    case $option in
        n) name=$OPTARG ;;
        b) broker=$OPTARG ;;
        e) engine=$OPTARG ;;
        s) source=$OPTARG ;;
        h) usage && exit 0 ;;
        *) misuse "see what it takes" ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || misuse "'$1' is one word too many"
recall
check_wishes
[ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "installing needs root: run it with sudo"
check_machine
check_python
check_memory
make_user
make_folders
install_fedmq
install_configuration
finish
