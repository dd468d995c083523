#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Run the kernel's own tests of lab/tests in VMs, and judge them (TAP).
#
#	lab/ktest.sh normal|debug|base [VM]
#
# "base" is the unpatched kernel that lab/baseline.sh builds: only the base's own tests
# of the MMU are run on it.  With a VM's name, that VM runs, and nothing judges.
#
# KVM has two ways to track private memory, which exclude each other on a host.
# Each has a VM of its own, and so have the tests that want a pool which is filled
# from CMA, without HVO at boot, and from ZONE_MOVABLE, those that want KVM without
# nested paging, or a processor without 1G pages, the base's own, and those that stress
# conversion.  Up to three VMs run at the same time, if there is memory for them; as
# soon as one has ended the next one starts.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

variant=$1
# Those that take longest start first.
vms=(in-place per-vm mmu stress cma shadow no-1g)
[ "$variant" != base ] || vms=(mmu)
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
	local vm=$1 like=$variant limit quiet

	[ "$variant" != base ] || like=normal
	tests_of "$like" "$vm" >"$(list "$vm")"
	rm -rf "$(dir "$vm")"
	[ -s "$(list "$vm")" ] || return 0
	limit=$(awk '{ s += $2 } END { print s + 180 }' "$(list "$vm")")
	# Longer than any test has is a VM that hangs; booting takes less.
	quiet=$(awk '$2 > m { m = $2 } END { print m + 60 }' "$(list "$vm")")
	KERNEL_ARGS=${kernel_args[$vm]} CPU_FLAGS=${cpu_flags[$vm]:-} \
		"$LAB/vm.sh" -k "$(kernel_dir "$variant")" \
		-t "$limit" -q "$quiet" -o "$(dir "$vm")" "$(commands <"$(list "$vm")")" |
		sed -u -nE "s/^# lab: (.*)/    $vm: \1/p" >&2
}

run_all()
{
	local at_a_time=3

	if [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -lt $((3 * VM_KB)) ]; then
		say "    less than $((3 * VM_KB / 1000000)) GB of memory are available: one VM after the other"
		at_a_time=1
	fi

	# What runs in the background doesn't see Ctrl-C; the VMs end with a TERM.
	trap 'trap - TERM; kill 0' INT TERM
	printf '%s\n' "${vms[@]}" | xargs -P "$at_a_time" -n 1 "$LAB/ktest.sh" "$variant" &
	wait $!
}

judge_all()
{
	local vm status=0

	for vm in "${vms[@]}"; do
		[ -s "$(list "$vm")" ] || continue
		"$LAB/judge.py" --name kernel --tests "$(list "$vm")" "$(dir "$vm")" |
			sed -E "s/^((not )?ok - )/\1$variant, $vm: /" | tee "$(dir "$vm")/verdict" || status=1
	done
	return "$status"
}

# What a VM that ended badly has said is judged, too.
status=0
if [ -n "${2:-}" ]; then
	[[ " ${vms[*]} " == *" $2 "* ]] || die "no such VM: $2" "wanted: one of ${vms[*]}"
	run "$2"
else
	step "running the kernel's tests on the $variant kernel" run_all || status=1
	judge_all || status=1
fi
exit "$status"
