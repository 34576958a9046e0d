#!/usr/bin/env bash
# Certificates for a broker and its devices, signed by a private authority of your own. Needs openssl 1.1.1 or newer.
set -euo pipefail
umask 077

readonly authority_days=7300
readonly name_pattern='^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'
readonly host_pattern='^[A-Za-z0-9.:-]{1,253}$'

folder=certificates
days=1825
hosts=

usage() {
    cat <<'END'
usage: make_certificates.sh [-d FOLDER] [-D DAYS] COMMAND

  broker HOST...   the broker's certificate, for the names and IP addresses by which clients reach it
                   (localhost and 127.0.0.1 are always in it, for health checks)
  device NAME...   one certificate for each device; NAME is the device's name in fedmq
  aggregator       the aggregator's certificate
  monitor          the certificate of whoever watches the broker
  revoke NAME...   take a lost device's certificate back

  -d FOLDER        where everything is kept (default: certificates)
  -D DAYS          how long new certificates are valid (default: 1825)

What is there already is left as it is. To renew a certificate, delete its .pem file and run the command again: the key
stays the same. The first command makes the authority.

  FOLDER/ca.pem              the authority's certificate: goes to the broker, to every device and the aggregator
  FOLDER/broker.pem, .key    go to the broker
  FOLDER/revoked.pem         goes to the broker, again after each `revoke`
  FOLDER/clients/NAME.pem, .key   go to that device, and nowhere else
  FOLDER/authority/          stays with you: whoever has it can be any device; best not on the broker's machine
END
}

fail() {
    printf 'make_certificates.sh: %s\n' "$*" >&2
    exit 1
}

misuse() {
    printf 'make_certificates.sh: %s\n\n' "$*" >&2
    usage >&2
    exit 2
}

# What openssl has to say matters only when it fails.
quietly() {
    local said
    said=$("$@" 2>&1 </dev/null) || fail "openssl failed: $said"
}

write_settings() {
    cat >"$folder/authority/openssl.cnf" <<'END'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[broker]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $ENV::hosts
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ca]
default_ca = revocations
[revocations]
database = $ENV::authority/index.txt
crlnumber = $ENV::authority/crlnumber
certificate = $ENV::authority/../ca.pem
private_key = $ENV::authority/ca.key
default_md = sha256
default_crl_days = 7300
END
}

make_key() {
    [ -s "$1" ] || quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

prepare() {
    mkdir -p "$folder/authority" "$folder/clients"
    chmod 755 "$folder"
    write_settings
    authority=$folder/authority
    export authority hosts
    if [ -s "$folder/ca.pem" ] && [ ! -s "$authority/ca.key" ]; then
        fail "$folder/ca.pem is there, but not its key $authority/ca.key: bring the key here, or name another folder"
    fi
    [ -s "$folder/ca.pem" ] || found_authority
    [ -s "$folder/revoked.pem" ] || list_revoked
}

found_authority() {
    make_key "$authority/ca.key"
    : >"$authority/index.txt"
    echo 01 >"$authority/crlnumber"
    quietly openssl req -x509 -new -config "$authority/openssl.cnf" -extensions authority -key "$authority/ca.key" \
        -sha256 -days "$authority_days" -subj "/CN=fedmq authority $(openssl rand -hex 4)" -out "$folder/ca.pem"
    chmod 644 "$folder/ca.pem"
    echo "made the authority: $folder/ca.pem"
}

list_revoked() {
    quietly openssl ca -config "$authority/openssl.cnf" -gencrl -out "$folder/revoked.pem"
    chmod 644 "$folder/revoked.pem"
}

# sign STEM KIND NAME: STEM.pem for STEM.key
sign() {
    local stem=$1 kind=$2 name=$3
    make_key "$stem.key"
    quietly openssl req -new -config "$authority/openssl.cnf" -key "$stem.key" -subj "/CN=$name" -out "$stem.csr"
    quietly openssl x509 -req -in "$stem.csr" -CA "$folder/ca.pem" -CAkey "$authority/ca.key" \
        -set_serial "0x$(openssl rand -hex 16)" -sha256 -days "$days" \
        -extfile "$authority/openssl.cnf" -extensions "$kind" -out "$stem.pem.new"
    rm "$stem.csr"
    chmod 644 "$stem.pem.new"
    mv "$stem.pem.new" "$stem.pem"
    echo "made $stem.pem and $stem.key, valid for $days days"
}

there_already() {
    [ -s "$1" ] || return 1
    openssl x509 -in "$1" -noout -checkend 2592000 >/dev/null ||
        fail "$1 has expired or will within 30 days: delete it and run this again"
    echo "$1 is there already"
}

alternative_names() {
    local host list=DNS:localhost,IP:127.0.0.1
    for host; do
        [[ $host =~ $host_pattern ]] ||
            fail "'$host' is neither a host's name nor an IP address: give one such as broker.example.org"
        case $host in
            localhost | 127.0.0.1) ;;
            *:*) list+=,IP:$host ;;
            *[!0-9.]*) list+=,DNS:$host ;;
            *) list+=,IP:$host ;;
        esac
    done
    printf '%s' "$list"
}

make_broker() {
    [ $# -gt 0 ] || misuse "broker wants the names or addresses by which clients reach it"
    hosts=$(alternative_names "$@")
    prepare
    if there_already "$folder/broker.pem"; then
        [ "$(cat "$folder/authority/broker.hosts")" = "$hosts" ] ||
            fail "$folder/broker.pem is for $(cat "$folder/authority/broker.hosts"): delete it and run this again"
        return
    fi
    sign "$folder/broker" broker "${1:0:64}"
    printf '%s\n' "$hosts" >"$folder/authority/broker.hosts"
}

check_device() {
    [[ $1 =~ $name_pattern ]] ||
        fail "'$1' cannot be a device's name: take 1 to 64 letters, digits, dots, dashes or underscores," \
            "beginning with a letter or a digit"
    case $1 in
        aggregator | monitor) fail "'$1' is not free for a device: the broker's access list knows it as something else" ;;
    esac
}

make_client() {
    there_already "$folder/clients/$1.pem" || sign "$folder/clients/$1" client "$1"
}

make_devices() {
    local name
    [ $# -gt 0 ] || misuse "device wants the names of devices"
    for name; do check_device "$name"; done
    prepare
    for name; do make_client "$name"; done
}

revoke() {
    local name
    [ $# -gt 0 ] || misuse "revoke wants the names of devices"
    for name; do
        [ -s "$folder/clients/$name.pem" ] || fail "there is no certificate $folder/clients/$name.pem to take back"
    done
    prepare
    for name; do
        quietly openssl ca -config "$authority/openssl.cnf" -revoke "$folder/clients/$name.pem"
        mv "$folder/clients/$name.pem" "$folder/clients/$name.revoked-$(date +%s%N).pem"
        rm "$folder/clients/$name.key"
        echo "took back the certificate of $name"
    done
    list_revoked
    echo "now copy $folder/revoked.pem to the broker and restart it"
}

while getopts d:D:h option; do
    case $option in
        d) folder=$OPTARG ;;
        D) days=$OPTARG ;;
        h) usage && exit 0 ;;
        *) misuse "see what it takes" ;;
    esac
done
shift $((OPTIND - 1))
[[ $days =~ ^[1-9][0-9]{0,4}$ ]] || misuse "-D wants a number of days, not '$days'"
[ -n "$folder" ] || misuse "-d wants a folder"
command -v openssl >/dev/null || fail "openssl is not installed: install it (on Debian: apt install openssl)"
[ $# -gt 0 ] || misuse "a command is missing"
command=$1
shift

case $command in
    broker) make_broker "$@" ;;
    device) make_devices "$@" ;;
    aggregator | monitor)
        prepare
        make_client "$command"
        ;;
    revoke) revoke "$@" ;;
    *) misuse "there is no command '$command'" ;;
esac
