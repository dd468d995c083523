#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make demo: build what is missing, run the demo VMMs in the VM, print their reports.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

demos=(guest_memfd_hugetlb_demo guest_memfd_hugetlb_conversion_demo)

for demo in "${demos[@]}"; do
	tests_of any | grep -qx "kvm:$demo" ||
		die "there is no kvm:$demo in lab/tests" "wanted: the series' demo programs, with \"none\" beside them"
done
"$LAB/source.sh"
"$LAB/tree.sh" --keep
"$LAB/kernel.sh" normal
"$LAB/selftests.sh"
"$LAB/image.sh"
say "... booting the VM"
export KERNEL_ARGS=kvm.gmem_in_place_conversion=1
exec "$LAB/run.sh" -t 300 "$(printf '/kselftest/kvm/%s || exit\n' "${demos[@]}")"
