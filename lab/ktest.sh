#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Run the kernel's own tests of lab/tests in VMs, and judge them (TAP).
#
#	lab/ktest.sh normal|debug|base
#
# "base" is the unpatched kernel that lab/baseline.sh builds: only the base's own tests
# of the MMU are run on it.
#
# KVM has two ways to track private memory, which exclude each other on a host.
# Each has a VM of its own, and so have the tests that want a pool which is filled
# from CMA, without HVO at boot, and from ZONE_MOVABLE, those that want KVM without
# nested paging, or a processor without 1G pages, the base's own, and those that stress
# conversion.  Up to three VMs run at the same time, if there is memory for them.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

variant=$1
declare -A kernel_args=(
	[per-vm]=''
	[in-place]='kvm.gmem_in_place_conversion=1'
	[cma]='hugetlb_cma=0:1G,1:1G hugetlb_free_vmemmap=off movablecore=1G'
	[shadow]='kvm_amd.npt=0'
	[no-1g]=''
	[mmu]=''
	[stress]='kvm.gmem_in_place_conversion=1'
)
declare -A cpu_flags=([no-1g]='pdpe1gb=off')
# What a VM has touched of its 8 GB when its tests are done, and QEMU itself: 6.2 GB.
VM_KB=6500000

dir() { echo "$BUILD/ktest-$variant-$1"; }
list() { echo "$BUILD/ktest-$variant-$1.list"; }

# The variable in which the kselftest runner looks for a test's arguments.
args_name()
{
	local name=${1#*:}

	name=${name^^}
	echo "KSELFTEST_${name//[^A-Z0-9]/_}_ARGS"
}

# One runner per test: each has its own timeout, and a result of its own.
commands()
{
	local test seconds args

	echo 'cd /kselftest'
	while read -r test seconds args; do
		echo "echo '# lab: $test starts' >/dev/kmsg"
		# shellcheck disable=SC2016	# for the VM's shell
		echo 'start=$(date +%s)'
		echo "$(args_name "$test")='$args' ./run_kselftest.sh -o $seconds -t $test"
		echo "echo \"# lab: $test took \$((\$(date +%s) - start)) s\""
	done
	echo 'exit 0'
}

# The judge prints the verdict; here only what shows that it goes on.
run()
{
	local mode=$1 limit quiet

	limit=$(awk '{ s += $2 } END { print s + 180 }' "$(list "$mode")")
	# Longer than any test has is a VM that hangs; booting takes less.
	quiet=$(awk '$2 > m { m = $2 } END { print m + 60 }' "$(list "$mode")")
	KERNEL_ARGS=${kernel_args[$mode]} CPU_FLAGS=${cpu_flags[$mode]:-} \
		"$LAB/vm.sh" -k "$(kernel_dir "$variant")" \
		-t "$limit" -q "$quiet" -o "$(dir "$mode")" "$(commands <"$(list "$mode")")" |
		sed -u -nE "s/^# lab: (.*)/    $mode: \1/p" >&2
}

# One after the other: each VM has as much memory as all the tests in it want.
run_one_by_one()
{
	local mode status=0 like=$variant

	[ "$variant" != base ] || like=normal
	for mode; do
		tests_of "$like" "$mode" >"$(list "$mode")"
		[ -s "$(list "$mode")" ] || continue
		run "$mode" || status=1
	done
	return "$status"
}

run_all()
{
	local pid status=0 pids=()

	if [ "$variant" = base ]; then
		run_one_by_one mmu
		return
	fi

	if [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -lt $((3 * VM_KB)) ]; then
		say "    less than $((3 * VM_KB / 1000000)) GB of memory are available: one VM after the other"
		run_one_by_one per-vm in-place cma shadow no-1g mmu stress
		return
	fi

	# What runs in the background doesn't see Ctrl-C; the VMs end with a TERM.
	trap 'trap - TERM; kill 0' INT TERM
	run_one_by_one in-place &
	pids+=($!)
	run_one_by_one per-vm &
	pids+=($!)
	run_one_by_one cma shadow no-1g mmu stress &
	pids+=($!)
	for pid in "${pids[@]}"; do
		wait "$pid" || status=1
	done
	return "$status"
}

step "running the kernel's tests on the $variant kernel" run_all

status=0
for mode in per-vm in-place cma shadow no-1g mmu stress; do
	[ -s "$(list "$mode")" ] || continue
	"$LAB/judge.py" --name kernel --tests "$(list "$mode")" "$(dir "$mode")" |
		sed -E "s/^((not )?ok - )/\1$variant, $mode: /" | tee "$(dir "$mode")/verdict" || status=1
done
exit "$status"
