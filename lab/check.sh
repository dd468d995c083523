#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make check: run everything, add it up.
#
# Each section prints TAP; its lines are counted, and a section that fails without
# saying "not ok" counts as one failure.  The last line is the sum.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

passed=0 failed=0 skipped=0

section()
{
	local what=$1 log=$BUILD/check.log status=0 start=$SECONDS bad

	shift
	say "=== $what"
	"$@" | tee "$log" || status=$?
	bad=$(grep -cE '^not ok\b' "$log" || :)
	if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
		echo "not ok - $what: ended with status $status"
		bad=1
	fi
	failed=$((failed + bad))
	skipped=$((skipped + $(grep -cE '^ok\b.*# SKIP' "$log" || :)))
	passed=$((passed + $(grep -E '^ok\b' "$log" | grep -cvE '# SKIP' || :)))
	say "=== $what: $((SECONDS - start)) s"
}

own_tests()
{
	local test status=0

	for test in "$LAB"/t/*.sh; do
		[ "$(basename "$test")" != common.sh ] || continue
		say "... $(basename "$test")"
		"$test" || status=1
	done
	return $status
}

# A failed build ends the run: nothing after it means anything.
"$LAB/source.sh"
"$LAB/tree.sh"
"$LAB/kernel.sh" normal
section 'lint' "$LAB/lint.sh"
"$LAB/selftests.sh"
"$LAB/image.sh"
section "the workshop's own tests" own_tests
section 'kernel tests, normal kernel' "$LAB/ktest.sh" normal
section "the base's own tests, without and with the series" "$LAB/baseline.sh" --compare
"$LAB/kernel.sh" debug
section 'kernel tests, debug kernel' "$LAB/ktest.sh" debug

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
