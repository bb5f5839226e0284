#!/usr/bin/env bash
# Buffers lines of standard input as readings, and posts what waits in one request, gzipped, until each is safe or refused for good.
#
#   buffer.sh https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings
#
# The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or files
# are wrong. Needs bash, gzip, and curl 7.84 or later.
set -euo pipefail

if [ $# != 5 ] || [ ${#5} -gt 50 ]; then # a key has 58 at most
    echo "usage: buffer.sh URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most" >&2
    exit 2
fi
url=$1 ca=$2 certificate=$3 key=$4 boot=$5
answer_timeout=15 wait_min=1 wait_max=300
size=100 # readings in one request: no more than the device's burst
for file in "$ca" "$certificate" "$key"; do
    [ -r "$file" ] || { echo "$file cannot be read" >&2 && exit 2; }
done
answer=$(mktemp)
trap 'rm "$answer"' EXIT
batch=() is_over=false

is_retryable() { # 000: no answer at all
    case $1 in 000 | 408 | 429 | 503 | 504) ;; *) false ;; esac
}

has_verdicts() {
    [[ $1 =~ \"records\":\{ ]]
}

# The whole request is refused since the certificate or the address is wrong, for all others too.
is_hopeless() { # STATUS PROBLEM
    case $1 in 403 | 404 | 405 | 421) ! has_verdicts "$2" ;; *) false ;; esac
}

# Waits for a reading where there is none, and takes what else is there already.
take() {
    local reading
    while ! $is_over && ((${#batch[@]} < size)) && { ((${#batch[@]} == 0)) || read -r -t 0; }; do
        IFS= read -r reading || is_over=true
        [ -z "$reading" ] || batch+=("$reading")
    done
    ((${#batch[@]} > 0))
}

# Status and Retry-After; the answer's body is in a file, without blanks.
post() { # NAME READING…
    local name=$1
    shift
    printf '%s\n' "$@" | gzip | curl --silent --show-error --max-time $answer_timeout \
        --cacert "$ca" --cert "$certificate" --key "$key" --data-binary @- \
        --header 'content-type: application/x-ndjson' --header 'content-encoding: gzip' --header "idempotency-key: $name" \
        --output "$answer" --write-out '%{http_code} %header{retry-after}\n' "$url/v1/telemetry/records" || true
}

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
    echo "$1: ${2/000/no answer}, ${#left[@]} again in $wait s" >&2
    sleep "$wait"
}

refuse() { # NAME CODE READING
    all_safe=false
    echo "$1: refused, $2: ${3:0:100}" >&2
}

# What is sent again, in `left`; what is refused for good is told.
judge() { # NAME STATUS PROBLEM
    local index code verdict
    left=()
    if has_verdicts "$3"; then # what is in neither list is safe
        [[ $3 =~ \"retry\":\[([0-9,]*)\] ]]
        for index in ${BASH_REMATCH[1]//,/ }; do left+=("${sent[index]}"); done
        while read -r verdict; do
            [[ $verdict =~ \"index\":([0-9]+) ]] && index=${BASH_REMATCH[1]}
            [[ $verdict =~ \"code\":\"([^\"]+) ]] && code=${BASH_REMATCH[1]}
            refuse "$1" "$code" "${sent[index]}"
        done < <(grep -oE '\{[^{}]*"index":[^{}]*\}' <<<"$3")
    elif is_retryable "$2"; then
        left=("${sent[@]}")
    elif [ "$2" != 204 ]; then
        for index in "${!sent[@]}"; do refuse "$1" "$2" "${sent[index]}"; done
    fi
}

number=1 failures=0 all_safe=true
while take; do
    name=$(printf '%s-%06d' "$boot" $number)
    sent=("${batch[@]:0:size}")
    : >"$answer"
    read -r status retry_after < <(post "$name" "${sent[@]}")
    problem=$(tr -d ' \n' <"$answer")
    if [[ $problem =~ \"(too-many-records|body-too-large)\" ]] && ((${#sent[@]} > 1)); then
        size=$((${#sent[@]} / 2)) number=$((number + 1))
        continue
    fi
    judge "$name" "$status" "$problem"
    is_hopeless "$status" "$problem" && exit 1
    # A key names readings by their place: others have another key.
    ((${#left[@]} == ${#sent[@]})) || number=$((number + 1))
    batch=("${left[@]}" "${batch[@]:${#sent[@]}}")
    if ((${#left[@]} > 0)); then
        wait_again "$name" "$status" "${retry_after:-0}"
    else
        failures=0
    fi
done
$all_safe
