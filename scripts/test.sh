#!/usr/bin/env bash
# Runs every check and test. Live tests need root; those that cannot run are listed at the end, with the reason.
# The last line is `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

scripts/setup.sh || exit 1

passed=0 failed=0 skipped=0
failures=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

check() {
    echo "== $*"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures+=("$*")
    fi
}

check cargo fmt --all --check
check cargo clippy --workspace --all-targets --locked -- -D warnings
check env RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace --locked
# The live tests run programs of other packages, which `cargo test` does not build by itself.
check cargo build --workspace --locked

echo "== cargo test --workspace --locked"
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log"
test_status=$?

# Each test program ends with `test result: ok. 1 passed; 0 failed; 0 ignored; ...`.
sum() {
    awk -v what="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == what) n += $(i - 1) } END { print n + 0 }' "$log"
}
tests_failed=$(sum failed)
if ((test_status != 0 && tests_failed == 0)); then
    failures+=("cargo test: did not get to its end")
    tests_failed=1
fi
passed=$((passed + $(sum passed)))
failed=$((failed + tests_failed))
skipped=$((skipped + $(sum ignored)))
while read -r name; do
    failures+=("$name")
done < <(sed -nE 's/^test (.*[^ ]) +\.\.\. FAILED$/\1/p' "$log")

echo
if ((skipped > 0)); then
    echo "Could not run:"
    sed -nE 's/^test (.*[^ ]) +\.\.\. ignored[, ]*(.*)$/  \1 \2/p' "$log"
fi
if ((failed > 0)); then
    echo "Failed:"
    printf '  %s\n' "${failures[@]}"
    # and what each test said of it: of a long log often only the end is kept
    awk '/^failures:$/ { inside = !inside; next } inside' "$log"
fi
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
