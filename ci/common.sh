# Sourced by the scripts beside it: the workspace's root in $root, and a `uv` that works.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"

python="${PYTHON:-$(command -v python || command -v python3 || true)}"
if ! command -v uv >/dev/null; then
    if [ -z "$python" ] || ! "$python" -m uv --version >/dev/null 2>&1; then
        echo "uv is missing; bring it with: python -m pip install uv" >&2
        exit 2
    fi
    uv() { "$python" -m uv "$@"; }
fi

# step NAME COMMAND...: runs a command and remembers its name, result and time; never exits.
step_lines=()
step_failures=0
step() {
    local name="$1" start=$SECONDS result=ok
    shift
    printf '\n==> %s\n' "$name"
    "$@" || { result="FAILED (exit $?)"; step_failures=$((step_failures + 1)); }
    step_lines+=("$(printf '%-24s %5ds  %s' "$name" $((SECONDS - start)) "$result")")
}

# step_summary TITLE: the result of every step; fails when one of them did.
step_summary() {
    printf '\n%s\n' "$1"
    printf '  %s\n' "${step_lines[@]}"
    [ "$step_failures" -eq 0 ]
}
