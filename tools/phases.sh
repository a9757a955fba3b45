#!/usr/bin/env bash
# Runs the named make targets one after the other, stops at the first that fails, and prints what each one took.
# A phase that takes longer than its budget fails as well, but those behind it still run. Budgets are seconds, half as
# much again as two idle cores need; ANATOLAB_BUDGET multiplies all of them (0: none), ANATOLAB_BUDGET_UNIT sets one.
# Usage: tools/phases.sh lint unit ...
set -uo pipefail
make=${MAKE:-make}
budgets="lint=60 unit=1000 doctest=60 html=1000 notebooks=450 site=900"
summary=()
status=0
begin=$SECONDS
for phase in "$@"; do
    printf '\n=== %s\n' "$phase"
    name=ANATOLAB_BUDGET_$(printf %s "$phase" | tr '[:lower:]' '[:upper:]')
    budget=$(printf '%s\n' $budgets | sed -n "s/^$phase=//p")
    budget=${!name:-$(awk "BEGIN { printf \"%d\", ${budget:-0} * ${ANATOLAB_BUDGET:-1} }")}
    start=$SECONDS
    "$make" --no-print-directory "$phase"
    failed=$?
    took=$((SECONDS - start))
    verdict=ok
    [ "$budget" = 0 ] || [ "$took" -le "$budget" ] || verdict=OVER
    [ "$failed" = 0 ] || verdict=FAILED
    [ "$verdict" = ok ] || status=1
    limit=$([ "$budget" = 0 ] || echo ", at most $budget s")
    summary+=("$(printf '%-10s %-7s %4d s%s' "$phase" "$verdict" "$took" "$limit")")
    [ "$failed" = 0 ] || break
done
printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
printf '%-10s %-7s %4d s\n' all "$([ "$status" = 0 ] && echo ok || echo FAILED)" $((SECONDS - begin))
exit "$status"
