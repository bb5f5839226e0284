#!/usr/bin/env bash
# Installs the Debian packages that are missing. `build`: to build the gateway and try it; `test`: for the tests as well.
# Runs apt only when something is missing, and sudo only when not root.
set -euo pipefail

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

java_major() { java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p'; }

# Kafka needs Java 17, and the device in Java its compiler.
java_suffices() {
    local major modules
    major=$(java_major || true)
    modules=$(java --list-modules 2>/dev/null || true)
    [ "${major:-0}" -ge 17 ] && [[ $modules == *jdk.compiler@* ]]
}

# The newest that this release of Debian or Ubuntu has; its default may be older.
jdk_package() {
    local major
    for major in 25 21 17; do
        if apt-cache show "openjdk-$major-jdk-headless" >/dev/null 2>&1; then
            echo "openjdk-$major-jdk-headless"
            return
        fi
    done
    echo default-jdk-headless
}

wanted=(make pkg-config libssl-dev zlib1g-dev python3 ca-certificates curl)
missing=()
need_java=no
if [ "${1:-build}" = test ]; then
    wanted+=(openssl python3-venv slowhttptest valgrind logrotate jq)
    command -v mvn >/dev/null || missing+=(maven)
    command -v go >/dev/null || missing+=(golang-go)
    command -v npm >/dev/null || missing+=(npm)
    java_suffices || need_java=yes
fi
for package in "${wanted[@]}"; do
    installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} = 0 ] && [ $need_java = no ]; then
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
as_root apt-get update -qq
if [ $need_java = yes ]; then
    missing+=("$(jdk_package)")
fi
echo "installing ${missing[*]}"
as_root apt-get install -y -qq --no-install-recommends "${missing[@]}"
