#!/usr/bin/env bash
# Posts each line of standard input as one reading, in order, and each until it is safe or refused for good.
#
#   device.sh https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings
#
# The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or files
# are wrong. Needs bash, and curl 7.84 or later. A curl keeps its connection for as long as it runs, so each is given all that waits,
# 100 readings at most, and stops at the first answer that is not 204.
set -euo pipefail

if [ $# != 5 ] || [ ${#5} -gt 50 ]; then # a key has 64 at most
    echo "usage: device.sh URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most" >&2
    exit 2
fi
url=$1 ca=$2 certificate=$3 key=$4 boot=$5
answer_timeout=15 wait_min=1 wait_max=300
for file in "$ca" "$certificate" "$key"; do
    [ -r "$file" ] || { echo "$file cannot be read" >&2 && exit 2; }
done
# Readings that wait, each a file: curl needs no quotes then, and no line is too long.
queue=$(mktemp -d)
trap 'rm -r "$queue"' EXIT
first=0 count=0

is_retryable() { # 000: no answer at all
    case $1 in 000 | 408 | 429 | 503 | 504) ;; *) false ;; esac
}

# The certificate or the address is wrong, for the next reading too.
is_hopeless() {
    case $1 in 403 | 404 | 405 | 421) ;; *) false ;; esac
}

name_of() { printf '%s-%06d' "$boot" $(($1 + 1)); }

# Waits for a reading, and takes what else is there already.
take() {
    local reading
    first=$((first + count)) count=0
    while ((count < 100)) && { ((count == 0)) || read -r -t 0; }; do
        IFS= read -r reading || [ -n "$reading" ] || break
        printf %s "$reading" >"$queue/$((first + count))"
        count=$((count + 1))
    done
    ((count > 0))
}

# What curl shall send from the reading with this index on.
requests() {
    local index
    for ((index = $1; index < first + count; index++)); do
        cat <<END
next
url = "$url/v1/telemetry"
cacert = "$ca"
cert = "$certificate"
key = "$key"
header = "content-type: application/json"
header = "idempotency-key: $(name_of "$index")"
data-binary = "@$queue/$index"
max-time = $answer_timeout
fail
silent
show-error
output = "/dev/null"
write-out = "%{http_code} %header{retry-after}\n"
END
    done
}

post() { requests "$1" | curl --fail-early --config - || true; }

# Milliseconds: doubled with each failure up to five minutes; spread, so that a fleet does not come back as one.
backoff() {
    local seconds=$((wait_min << ($1 < 16 ? $1 : 16)))
    echo $(((seconds < wait_max ? seconds : wait_max) * (500 + RANDOM % 1001)))
}

wait_again() { # NAME STATUS RETRY-AFTER
    local wait
    wait=$(backoff "$failures")
    [[ $3 =~ ^[0-9]+$ ]] && ((wait < $3 * 1000)) && wait=$(($3 * 1000))
    failures=$((failures + 1))
    wait=$(printf '%d.%03d' $((wait / 1000)) $((wait % 1000)))
    echo "$1: ${2/000/no answer}, again in $wait s" >&2
    sleep "$wait"
}

sent=0 failures=0 all_safe=true
while ((sent < first + count)) || take; do
    mapfile -t answers < <(post "$sent")
    for answer in "${answers[@]}"; do
        read -r status retry_after <<<"$answer"
        if is_retryable "$status"; then
            wait_again "$(name_of "$sent")" "$status" "${retry_after:-0}"
            break
        fi
        if [ "$status" != 204 ]; then
            all_safe=false
            echo "$(name_of "$sent"): refused, $status" >&2
        fi
        is_hopeless "$status" && exit 1
        rm "$queue/$sent"
        sent=$((sent + 1)) failures=0
    done
done
$all_safe
