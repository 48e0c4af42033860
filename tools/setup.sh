#!/bin/sh
# Installs what one target needs, and only what is missing: system packages by apt, the rest into .venv.
# Usage: tools/setup.sh demo|test|check|bench|fuzz|bogo
set -eu
cd "$(dirname "$0")/.."
target=${1:?which target}

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        say "setup: this needs root (or sudo): $*"; exit 1; fi
}

# apt_need COMMAND-OR-PATH=PACKAGE ...: installs the packages whose command or file is not there
apt_need() {
    missing=
    for pair in "$@"; do
        what=${pair%%=*}; package=${pair#*=}
        case $what in
            /*) [ -e "$what" ] || missing="$missing $package" ;;
            *) command -v "$what" >/dev/null || [ -x "/usr/sbin/$what" ] || missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "setup: installing$missing"
    as_root apt-get update -qq
    # servers that a package would start are the tests' to start, on free ports: policy-rc.d is how Debian says so
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.12 python3.11 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"; return
        fi
    done
    say "setup: Python 3.11 or newer is needed; install it, or name it: make $target PYTHON=/path/to/python3"; exit 1
}

make_venv() {
    [ -x .venv/bin/python ] && return
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        apt_need /nonexistent=python3-venv
    fi
    "$python" -m venv .venv
}

# pip_need STAMP ARGS...: runs pip once for each state of the project files that name dependencies
pip_need() {
    stamp=.venv/.stamp-$1; shift
    state=$({ cat pyproject.toml plugins/*/pyproject.toml tools/requirements-*.txt tools/setup.sh; echo "$*"; } | cksum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$state" ] && return 0
    say "setup: pip install $*"
    .venv/bin/pip install --quiet --disable-pip-version-check "$@" 2>.venv/pip.log || { cat .venv/pip.log >&2; exit 1; }
    printf '%s' "$state" >"$stamp"
}

install_project() {
    editable="-e ."
    for plugin in plugins/*/pyproject.toml; do
        if [ "$plugin" = plugins/kdh/pyproject.toml ] && ! command -v krb5-config >/dev/null; then
            say "setup: there are no headers of MIT Kerberos, so the plugin kdh is left out"
            continue
        fi
        editable="$editable -e ${plugin%/pyproject.toml}"
    done
    pip_need project $editable
}

# what the plugins need to be built, and a token to keep keys in
plugin_packages() {
    apt_need softhsm2-util=softhsm2 openssl=openssl curl=curl gpg=gnupg
    # the Kerberos bindings come as source only; where they cannot be built, the pool does without
    headers=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    (apt_need krb5-config=libkrb5-dev gcc=gcc /usr/include/stdio.h=libc6-dev "$headers=python3-dev") ||
        say "setup: what the plugin kdh needs to be built cannot be installed"
}

# to build the runner of BoringSSL's suite
bogo_packages() {
    apt_need go=golang-go /usr/share/gocode/src/golang.org/x/crypto=golang-golang-x-crypto-dev dpkg-source=dpkg-dev
}

make_venv
case $target in
    demo)
        plugin_packages
        apt_need freeradius=freeradius krb5kdc=krb5-kdc kadmin.local=krb5-admin-server
        install_project ;;
    check)
        plugin_packages
        install_project
        pip_need check -r tools/requirements-test.txt ;;
    test)
        plugin_packages
        apt_need gnutls-cli=gnutls-bin selfserv=libnss3-tools certutil=libnss3-tools pkcs11-tool=opensc \
            krb5kdc=krb5-kdc kadmin.local=krb5-admin-server kinit=krb5-user freeradius=freeradius chromium=chromium \
            mandoc=mandoc groff=groff-base pinentry-tty=pinentry-tty systemd-analyze=systemd \
            /usr/lib/postgresql=postgresql slapd=slapd ldapwhoami=ldap-utils dovecot=dovecot-imapd \
            unbound=unbound /usr/lib/dovecot/pop3=dovecot-pop3d /usr/lib/dovecot/managesieve=dovecot-managesieved \
            postfix=postfix prosody=prosody
        bogo_packages
        install_project
        pip_need test -r tools/requirements-test.txt ;;
    bench)
        plugin_packages
        apt_need haproxy=haproxy stunnel4=stunnel4 taskset=util-linux
        install_project
        pip_need test -r tools/requirements-test.txt ;;
    fuzz)
        plugin_packages
        install_project
        pip_need test -r tools/requirements-test.txt ;;
    bogo)
        plugin_packages
        bogo_packages
        install_project
        pip_need test -r tools/requirements-test.txt ;;
    *) say "setup: unknown target $target"; exit 2 ;;
esac
