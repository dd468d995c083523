#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make demo: build what is missing, run the demo VMM in the VM, print its report.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

demo=guest_memfd_hugetlb_demo

tests_of any | grep -qx "kvm:$demo" ||
	die "there is no kvm:$demo in lab/tests" "wanted: the demo program of the series, with \"none\" beside it"
"$LAB/source.sh"
"$LAB/tree.sh" --keep
"$LAB/kernel.sh" normal
"$LAB/selftests.sh"
"$LAB/image.sh"
say "... booting the VM"
exec "$LAB/run.sh" -t 300 "/kselftest/kvm/$demo"
