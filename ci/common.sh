# Sourced by the scripts beside it: options, steps, and a `uv` that works, at the workspace's root.
script="$(cd "$(dirname "$0")" && pwd)/$(basename "$0")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-$(command -v python || command -v python3 || true)}"
uv() {
    if [ -n "${UV:-}" ]; then # within `uv run`
        "$UV" "$@"
    elif type -P uv >/dev/null; then
        command uv "$@"
    elif [ -n "$python" ] && "$python" -c "import uv" 2>/dev/null; then
        "$python" -m uv "$@"
    else
        echo "uv is missing; bring it with: python -m pip install uv" >&2
        return 2
    fi
}

# show_help: the comment at the top of the script.
show_help() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$script"
}

# misuse MESSAGE: says what is wrong with the arguments, and ends.
misuse() {
    printf '%s: %s\n\n%s\n' "$(basename "$script")" "$1" "$(show_help)" >&2
    exit 2
}

# report TEXT: prints a line and, within a step, adds it to the summary. A report that begins with
# `skipped` says that the step had nothing to do here, and why.
report() {
    printf '%s\n' "$1" | tee -a "${CI_REPORT:-/dev/null}"
}

# step NAME COMMAND...: runs a command and remembers its name, time, result and reports; never exits.
step_lines=()
step_failures=0
step() {
    local name="$1" start=$SECONDS result=ok status=0 reports line
    shift
    reports="$(mktemp)"
    printf '\n==> %s\n' "$name"
    CI_REPORT="$reports" "$@" || status=$?
    if [ "$status" -ne 0 ]; then
        result="FAILED (exit $status); again alone:$(printf ' %q' "$@")"
        step_failures=$((step_failures + 1))
    elif grep -q '^skipped' "$reports"; then
        result="skipped"
    fi
    step_lines+=("$(printf '%-24s %5ds  %s' "$name" $((SECONDS - start)) "$result")")
    while IFS= read -r line; do
        step_lines+=("  $line")
    done <"$reports"
    rm -f "$reports"
}

# step_summary TITLE: the result of every step; fails when one of them did.
step_summary() {
    printf '\n%s\n' "$1"
    printf '  %s\n' "${step_lines[@]}" | tee -a "${CI_REPORT:-/dev/null}"
    [ "$step_failures" -eq 0 ]
}
