#!/usr/bin/env bash
# An account with a random password, for clients that have no certificate. Needs mosquitto_passwd and openssl.
set -euo pipefail
umask 077

readonly name_pattern='^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'
passwords=passwords

usage() {
    cat <<'END'
usage: add_account.sh [-f PASSWORDS] NAME...

Adds each NAME to the broker's password file (default: passwords) and writes its new password to NAME.password, beside
that file: take it to the device's password_file, then delete it here. A NAME that has an account gets a new password.

NAME is the device's name in fedmq, `aggregator` or `monitor`. A running mosquitto reads the file again on SIGHUP.
To remove an account: mosquitto_passwd -D passwords NAME
END
}

fail() {
    printf 'add_account.sh: %s\n' "$*" >&2
    exit 1
}

# The password stays off the command line, where every user of this machine could read it.
hashed() {
    local line
    line=$(mktemp "$work/line.XXXXXX")
    printf '%s:%s\n' "$1" "$2" >"$line"
    mosquitto_passwd -U "$line" >/dev/null
    cat "$line"
}

add() {
    local name=$1 password
    password=$(openssl rand -base64 24)
    { grep -v "^$name:" "$passwords" || true; } >"$work/passwords"
    hashed "$name" "$password" >>"$work/passwords"
    printf '%s\n' "$password" >"$(dirname "$passwords")/$name.password"
    cat "$work/passwords" >"$passwords" # in place: owner and mode stay what they are
    echo "added $name: its password is in $(dirname "$passwords")/$name.password"
}

while getopts f:h option; do
    case $option in
        f) passwords=$OPTARG ;;
        h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2 && exit 2; }
for program in mosquitto_passwd openssl; do
    command -v $program >/dev/null || fail "$program is not installed: on Debian, apt install mosquitto openssl"
done
for name; do
    [[ $name =~ $name_pattern ]] ||
        fail "'$name' cannot be an account: take 1 to 64 letters, digits, dots, dashes or underscores," \
            "beginning with a letter or a digit"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
touch "$passwords"
for name; do add "$name"; done
