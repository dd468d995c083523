#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make check: run everything, add it up.
#
# Each section prints TAP; its lines are counted, and a section that fails without
# saying "not ok" counts as one failure.  The last line is the sum.
#
# What a section printed when all of it passed is kept in build/check, by what it
# depends on, and printed again as long as that stays the same.  AGAIN=1 runs it all.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

passed=0 failed=0 skipped=0 reprinted=0

# The programs of the machine, for one.
machine() { dpkg-query -W; }

repository()
{
	cat "$BUILD/source.id"
	# What is deleted and not committed has no sum; that is a difference, too.
	(cd "$ROOT" && git ls-files -co --exclude-standard -z | xargs -0 sha256sum 2>&1) || :
}

# What runs in the VM, what runs the VM, and what judges it.
vm()
{
	sha256sum "$(kernel_dir "$1")/arch/x86/boot/bzImage" "$LAB"/{image,ktest,lib,vm,watchers}.sh \
		"$LAB/init" "$LAB/judge.py" "$LAB/splats" "$TESTS"
	find "$BUILD/selftests/install" -type f -print0 | sort -z | xargs -0 sha256sum
}

# On what another section has left behind.
always() { date +%s%N; }

# section WHAT DEPENDS-ON COMMAND...
section()
{
	local what=$1 kept log status=0 start=$SECONDS bad

	kept=$BUILD/check/$({ echo "$what"; machine; $2; } | sha256sum | cut -d ' ' -f 1)
	log=$BUILD/check.log
	shift 2
	say "=== $what"
	if [ -f "$kept" ] && [ -z "${AGAIN:-}" ]; then
		tee "$log" <"$kept"
		reprinted=$((reprinted + 1))
		say "    nothing changed since it passed; AGAIN=1 runs it again"
	else
		"$@" | tee "$log" || status=$?
	fi
	bad=$(grep -cE '^not ok\b' "$log" || :)
	if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
		echo "not ok - $what: ended with status $status"
		bad=1
	fi
	failed=$((failed + bad))
	skipped=$((skipped + $(grep -cE '^ok\b.*# SKIP' "$log" || :)))
	passed=$((passed + $(grep -E '^ok\b' "$log" | grep -cvE '# SKIP' || :)))
	rm -f "$kept"
	[ "$bad" != 0 ] || cp "$log" "$kept"
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

# A failed build ends the run, as nothing after it means anything, and is a failure.
add_up()
{
	local status=$?

	[ "$status" = 0 ] || failed=$((failed + 1))
	[ "$reprinted" = 0 ] || say "$reprinted sections are as they were when they passed"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] || exit 1
}
trap add_up EXIT

mkdir -p "$BUILD/check"
"$LAB/source.sh"
"$LAB/tree.sh"
section 'lint' repository "$LAB/lint.sh"
"$LAB/kernel.sh" normal
"$LAB/selftests.sh"
"$LAB/image.sh"
section "the workshop's own tests" repository own_tests
section 'kernel tests, normal kernel' 'vm normal' "$LAB/ktest.sh" normal
section "the base's own tests, without and with the series" always "$LAB/baseline.sh" --compare
"$LAB/kernel.sh" debug
section 'what watches the debug kernel' 'vm debug' "$LAB/watchers.sh"
section 'kernel tests, debug kernel' 'vm debug' "$LAB/ktest.sh" debug
