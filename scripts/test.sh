#!/usr/bin/env bash
# Runs every check and test. Live tests need root; those that cannot run are listed at the end, with the reason.
# The last line is `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

scripts/setup.sh || exit 1

passed=0 failed=0 skipped=0
failures=() skips=()
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

skip() {
    echo "== $1: skipped: $2"
    skipped=$((skipped + 1))
    skips+=("$1: $2")
}

# What the workspace is built of: licences, sources, vulnerabilities, the oldest Rust.
supply_chain() {
    PATH="$PATH:$PWD/target/deny/bin"
    if ! command -v cargo-deny >/dev/null; then
        skip "cargo deny" "it is not installed, and scripts/setup.sh could not"
    else
        check cargo deny --locked check bans licenses sources
        # Only the database's own error says that it could not be had: everything else is a finding.
        if ! timeout 60 cargo deny --locked fetch db >"$log" 2>&1; then
            skip "cargo deny check advisories" "the RustSec database cannot be reached"
        else
            check cargo deny --locked --offline check advisories
        fi
    fi
    check scripts/msrv.py
    local oldest
    oldest=$(sed -nE 's/^rust-version = "(.*)"$/\1/p' Cargo.toml)
    if rustup toolchain list 2>/dev/null | grep -qF "$oldest"; then
        check cargo "+$oldest" check --workspace --locked --target-dir "target/msrv"
    else
        skip "cargo +$oldest check" "rustup has no toolchain $oldest: install it with \`rustup toolchain install $oldest\`"
    fi
}

check cargo fmt --all --check
supply_chain
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
    ((${#skips[@]})) && printf '  %s\n' "${skips[@]}"
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
