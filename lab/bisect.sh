#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make bisect: each commit of the series builds and boots, in each configuration, and
# each topic group passes the tests that are there when it ends.
#
#	lab/bisect.sh [RANGE [VARIANT...]]
#
# RANGE is one of build/tree, e.g. gmem~3..gmem; all of the series by default.  The
# variants are configurations, of which "coco" is for the last commit of each group and
# "minimal" for the last of all, and "group" for the tests of the groups.
#
# A commit passes in a configuration when its kernel builds and a quick test passes
# in the VM without a splat.  What passed once is remembered by the git tree of the
# commit, the fragments and the test, in the cache directory: a second run is free.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# What minimal is about.
HUGETLB_TEST=kvm:guest_memfd_hugetlb_test
# With all of the series, and the option off: flags of huge pages are refused.
FLAGS_TEST=kvm:guest_memfd_test
# With all of the series, and KVM as a module, which can be unloaded.
UNLOAD_TEST=kvm:guest_memfd_hugetlb_split_hold_test
work=$BUILD/bisect
range=${1:-$BASE_REF..gmem}
shift || :
variants=("$@")
[ $# -gt 0 ] || variants=(normal nohugetlb kvm-m coco minimal group)
status=0
mkdir -p "$work" "$CACHE/bisect"

fragments() { cat "$LAB/kconfig/vm.config" "$LAB/kconfig/$1.config" 2>/dev/null || cat "$LAB/kconfig/vm.config"; }
# One that asks for nothing that a commit of the series brings.  In coco there is no
# private memory until guest_memfd tracks it.
smoke_test() { if [ "$1" = coco ]; then echo kvm:pre_fault_memory_test; else echo kvm:private_mem_conversions_test; fi; }
is_last() { [ "$1" = "$(tgit rev-parse gmem)" ]; }
has_unload_test() { [ "$1" = kvm-m ] && is_last "$2"; }
has_flags_test() { [ "$1" = nohugetlb ] && is_last "$2"; }

tests()
{
	smoke_test "$1"
	[ "$1" != minimal ] || echo "$HUGETLB_TEST"
	! has_flags_test "$@" || echo "$FLAGS_TEST"
	! has_unload_test "$@" || echo "$UNLOAD_TEST"
}

# What the VM does for a configuration and a commit.  The two tests want KVM to track
# private memory in different ways.
commands()
{
	echo 'cd /kselftest'
	echo "./run_kselftest.sh -o 200 -t $(smoke_test "$1")"
	[ "$1" != minimal ] || echo "./run_kselftest.sh -o 400 -t $HUGETLB_TEST"
	! has_flags_test "$@" || echo "./run_kselftest.sh -o 300 -t $FLAGS_TEST"
	if has_unload_test "$@"; then
		echo 'echo options kvm gmem_in_place_conversion=1 >/etc/modprobe.conf'
		echo 'modprobe -r kvm_amd; modprobe -r kvm; modprobe kvm_amd'
		echo "GMEM_UNLOAD_KVM=1 ./run_kselftest.sh -o 600 -t $UNLOAD_TEST"
	fi
	echo 'exit 0'
}

# The lines of lab/tests whose test is there in $work/tree.
tests_there()
{
	local tests=$work/tree/tools/testing/selftests test rest dir name

	while read -r test rest; do
		dir=$tests/${test%%:*} name=${test#*:}
		if [ -f "$dir/$name.c" ] || [ -f "$dir/x86/$name.c" ] ||
		   [ -f "$dir/$name" ] || [ -f "$dir/x86/$name" ]; then
			echo "$test $rest"
		fi
	done < <(grep '^[a-z]' "$LAB/tests")
}

# The kernel doesn't look at what is left out of the key; groups are about tests, too.
key()
{
	{
		tgit ls-tree -r "$2" | if [ "$1" = group ]; then
			cat - "$LAB/tests"
		else
			grep -vP '\t(Documentation/|MAINTAINERS$|tools/testing/)'
			commands "$@"
		fi
		fragments "$1"
	} | sha256sum | cut -d ' ' -f 1
}

checkout()
{
	tgit worktree prune
	[ -d "$work/tree" ] || tgit worktree add -q --detach "$work/tree" "$1"
	gitp -C "$work/tree" checkout -q --detach "$1"
}

boot()
{
	local variant=$1 out=$work/$1

	checkout "$2" || return
	"$LAB/kernel.sh" "$variant" "$work/tree" "$out" || return
	"$LAB/image.sh" "$out" "$work/smoke.cpio" || return
	"$LAB/vm.sh" -k "$out" -i "$work/smoke.cpio" -t 840 -o "$work/run" \
		"$(commands "$@")" >/dev/null
	tests "$@" >"$work/tests"
	"$LAB/judge.py" --tests "$work/tests" "$work/run" || return
	# Without /dev/kvm the tests skip; that says nothing.
	! grep '^ok [0-9]* selftests: .* # SKIP' "$work/run/out.log"
}

# As make check does it, but with $work for build/.
test_group()
{
	export GMEM_BUILD=$work GMEM_TESTS=$work/group.tests

	checkout "$2" || return
	tests_there >"$GMEM_TESTS" || return
	"$LAB/kernel.sh" normal "$work/tree" "$work/normal" || return
	ln -sfn normal "$work/kernel"
	# Whether to build a test again, make can't tell when a header is older than it.
	rm -rf "$work/selftests"
	"$LAB/selftests.sh" || return
	"$LAB/image.sh" || return
	"$LAB/ktest.sh" normal
}

run()
{
	if [ "$1" = group ]; then
		(test_group "$@")
	else
		boot "$@"
	fi
}

# The commits that a group ends with.
group_ends() { series_groups | while read -r _ _ last; do tgit rev-list --reverse "$BASE_REF..gmem" | sed -n "${last}p"; done; }

# wanted VARIANT COMMIT
wanted()
{
	case $1 in
	coco | group)	grep -qxF "$2" <<<"$ends" ;;
	minimal)	is_last "$2" ;;
	esac
}

[ -d "$BUILD/selftests/install" ] || "$LAB/selftests.sh"
ends=$(group_ends)
for commit in $(tgit rev-list --reverse "$range"); do
	what=$(tgit log -1 --format=%s "$commit")
	for variant in "${variants[@]}"; do
		wanted "$variant" "$commit" || continue
		passed=$CACHE/bisect/$(key "$variant" "$commit")
		if [ -f "$passed" ]; then
			echo "ok - bisect: $what: $variant (before)"
		elif run "$variant" "$commit" >"$work/log" 2>&1; then
			touch "$passed"
			echo "ok - bisect: $what: $variant"
		else
			echo "not ok - bisect: $what: $variant"
			{ grep -m 5 -A 10 '^not ok' "$work/log" || tail -n 30 "$work/log"; } | sed 's/^/#   /'
			status=1
		fi
	done
done
exit $status
