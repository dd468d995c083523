#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make bisect: each commit of the series builds and boots, in each configuration.
#
#	lab/bisect.sh [RANGE [VARIANT...]]
#
# RANGE is one of build/tree, e.g. gmem~3..gmem; all of the series by default.
#
# A commit passes in a configuration when its kernel builds and a quick test passes
# in the VM without a splat.  What passed once is remembered by the git tree of the
# commit, the fragments and the test, in the cache directory: a second run is free.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# One that asks for nothing that a commit of the series brings.
SMOKE_TEST=kvm:private_mem_conversions_test
# With all of the series, and KVM as a module, which can be unloaded.
UNLOAD_TEST=kvm:guest_memfd_hugetlb_split_hold_test
work=$BUILD/bisect
range=${1:-$BASE_REF..gmem}
shift || :
variants=("$@")
[ $# -gt 0 ] || variants=(normal nohugetlb kvm-m coco)
status=0
mkdir -p "$work" "$CACHE/bisect"

fragments() { cat "$LAB/kconfig/vm.config" "$LAB/kconfig/$1.config" 2>/dev/null || cat "$LAB/kconfig/vm.config"; }
has_unload_test() { [ "$1" = kvm-m ] && [ "$2" = "$(tgit rev-parse gmem)" ]; }

tests()
{
	echo "$SMOKE_TEST"
	! has_unload_test "$@" || echo "$UNLOAD_TEST"
}

# What the VM does for a configuration and a commit.  The two tests want KVM to track
# private memory in different ways.
commands()
{
	echo 'cd /kselftest'
	echo "./run_kselftest.sh -o 200 -t $SMOKE_TEST"
	if has_unload_test "$@"; then
		echo 'mkdir -p /etc'
		echo 'echo options kvm gmem_in_place_conversion=1 >/etc/modprobe.conf'
		echo 'modprobe -r kvm_amd; modprobe -r kvm; modprobe kvm_amd'
		echo "GMEM_UNLOAD_KVM=1 ./run_kselftest.sh -o 600 -t $UNLOAD_TEST"
	fi
	echo 'exit 0'
}

# What no build looks at is left out of the key.
key()
{
	{
		tgit ls-tree "$2" | grep -vP '\t(Documentation|MAINTAINERS)$'
		fragments "$1"
		commands "$@"
	} | sha256sum | cut -d ' ' -f 1
}

build_and_boot()
{
	local variant=$1 out=$work/$1

	tgit worktree prune
	[ -d "$work/tree" ] || tgit worktree add -q --detach "$work/tree" "$2"
	gitp -C "$work/tree" checkout -q --detach "$2"
	"$LAB/kernel.sh" "$variant" "$work/tree" "$out" || return
	"$LAB/image.sh" "$out" "$work/initramfs.cpio"
	"$LAB/vm.sh" -k "$out" -i "$work/initramfs.cpio" -t 840 -o "$work/run" \
		"$(commands "$@")" >/dev/null
	tests "$@" >"$work/tests"
	"$LAB/judge.py" --tests "$work/tests" "$work/run"
}

[ -d "$BUILD/selftests/install" ] || "$LAB/selftests.sh"
for commit in $(tgit rev-list --reverse "$range"); do
	what=$(tgit log -1 --format=%s "$commit")
	for variant in "${variants[@]}"; do
		passed=$CACHE/bisect/$(key "$variant" "$commit")
		if [ -f "$passed" ]; then
			echo "ok - bisect: $what: $variant (before)"
		elif build_and_boot "$variant" "$commit" >"$work/log" 2>&1; then
			touch "$passed"
			echo "ok - bisect: $what: $variant"
		else
			echo "not ok - bisect: $what: $variant"
			tail -n 30 "$work/log" | sed 's/^/#   /'
			status=1
		fi
	done
done
exit $status
