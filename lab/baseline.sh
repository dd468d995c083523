#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What the base's own tests of the MMU say on the unpatched base, and with the series.
#
#	lab/baseline.sh			run them on the base, write lab/baseline
#	lab/baseline.sh --compare	print both results (TAP), after lab/ktest.sh normal
#
# The base changes with a new point release only, so its results are in the repository.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

baseline=$LAB/baseline
base=$BUILD/base

# "ok kvm:NAME" or "not ok kvm:NAME" lines from what lab/ktest.sh left.
results() { sed -nE 's/^((not )?ok) - [a-z]+, mmu: (kvm:[^ ]+).*/\1 \3/p' "$BUILD/ktest-$1-mmu/verdict"; }

record()
{
	tgit worktree prune
	[ -d "$base" ] || tgit worktree add -q --detach "$base" "$BASE_REF"
	gitp -C "$base" checkout -q --detach "$BASE_REF"
	"$LAB/kernel.sh" normal "$base" "$(kernel_dir base)"
	"$LAB/ktest.sh" base || :
	{
		echo "# The base's own tests of the MMU on the unpatched base, Linux $(make -s -C "$base" kernelversion)."
		echo '# Written by make baseline; make check compares.'
		results base
	} >"$baseline"
}

# Whatever passes on the base has to pass with the series.
compare()
{
	local result test with status=0

	while read -r result test; do
		with=$(results normal | sed -n "s/ $test\$//p")
		if [ "$with" = ok ] || [ "$result" != ok ]; then
			echo "ok - $test: base $result, series ${with:-not run}"
		else
			echo "not ok - $test: base $result, series ${with:-not run}"
			status=1
		fi
	done < <(sed -e '/^#/d' -e 's/^not ok/not-ok/' "$baseline")
	return $status
}

case ${1:-} in
'') record ;;
--compare) compare ;;
*) die "unknown option: $1" "usage: lab/baseline.sh [--compare]" ;;
esac
