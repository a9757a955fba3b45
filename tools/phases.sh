#!/usr/bin/env bash
# Runs the named make targets one after the other, stops at the first that fails, and prints what each one took.
# Usage: tools/phases.sh lint unit ...
set -uo pipefail
make=${MAKE:-make}
summary=()
status=0
begin=$SECONDS
for phase in "$@"; do
    printf '\n=== %s\n' "$phase"
    start=$SECONDS
    if "$make" --no-print-directory "$phase"; then
        verdict=ok
    else
        verdict=FAILED
        status=1
    fi
    summary+=("$(printf '%-10s %-7s %4d s' "$phase" "$verdict" $((SECONDS - start)))")
    [ "$status" = 0 ] || break
done
printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
printf '%-10s %-7s %4d s\n' all "$([ "$status" = 0 ] && echo ok || echo FAILED)" $((SECONDS - begin))
exit "$status"
