#!/usr/bin/env bash
# Runs the named make targets one after the other, stops at the first that fails, and prints what each one took, by the
# clock and in CPU seconds of all its processes. Targets that are joined, as in lint+doctest, run at the same time; what
# all but the first of them print comes at their end. A phase that takes longer than its budget fails as well, but those
# behind it still run. Budgets are seconds, half as much again as two idle cores need; ANATOLAB_BUDGET multiplies all of
# them (0: none), ANATOLAB_BUDGET_UNIT sets one.
# The last run stands in _build/phases.json.
# Usage: tools/phases.sh lint+doctest unit ...
set -uo pipefail
make=${MAKE:-make}
budgets="lint=120 doctest=120 unit=800 executed=600 pages=500 notebooks=450 site=800"
summary=()
status=0
failed_any=0
begin=$SECONDS
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

run() ( # phase: runs it in a shell of its own, notes its exit status, seconds, and seconds of processors
    start=$SECONDS
    "$make" --no-print-directory "$1"
    code=$?
    times >"$logs/$1.times" # of its children on the second line: 1m2.345s 0m6.789s
    cpu=$(awk 'NR == 2 { split($0, t, /[ms ]+/); printf "%d", 60 * (t[1] + t[3]) + t[2] + t[4] }' "$logs/$1.times")
    printf '%s %s %s\n' "$code" $((SECONDS - start)) "$cpu" >"$logs/$1.end"
)

judge() { # phase: its line of the summary
    local phase=$1 name budget failed took cpu verdict limit
    name=ANATOLAB_BUDGET_$(printf %s "$phase" | tr '[:lower:]' '[:upper:]')
    budget=$(printf '%s\n' $budgets | sed -n "s/^$phase=//p")
    budget=${!name:-$(awk "BEGIN { printf \"%d\", ${budget:-0} * ${ANATOLAB_BUDGET:-1} }")}
    read -r failed took cpu <"$logs/$phase.end"
    verdict=ok
    [ "$budget" = 0 ] || [ "$took" -le "$budget" ] || verdict=OVER
    [ "$failed" = 0 ] || verdict=FAILED failed_any=1
    [ "$verdict" = ok ] || status=1
    limit=$([ "$budget" = 0 ] || echo ", at most $budget s")
    summary+=("$(printf '%-10s %-7s %4d s%s; CPU %d s' "$phase" "$verdict" "$took" "$limit" "$cpu")")
}

for joined in "$@"; do
    printf '\n=== %s\n' "${joined//+/ and }"
    IFS=+ read -ra phases <<<"$joined"
    for phase in "${phases[@]:1}"; do
        run "$phase" >"$logs/$phase.out" 2>&1 &
    done
    run "${phases[0]}"
    wait
    for phase in "${phases[@]:1}"; do
        printf '\n--- %s\n' "$phase"
        cat "$logs/$phase.out"
    done
    for phase in "${phases[@]}"; do
        judge "$phase"
    done
    [ "$failed_any" = 0 ] || break
done
printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
took=$((SECONDS - begin))
printf '%-10s %-7s %4d s\n' all "$([ "$status" = 0 ] && echo ok || echo FAILED)" "$took"
mkdir -p _build
printf '{"phases": "%s", "status": %d, "seconds": %d}\n' "$*" "$status" "$took" >_build/phases.json
exit "$status"
