#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Run the kernel's own tests of lab/tests in the VM, and judge them (TAP).
#
#	lab/ktest.sh normal|debug
set -euo pipefail
. "$(dirname "$0")/lib.sh"

variant=$1
dir=$BUILD/ktest-$variant
list=$BUILD/ktest-$variant.list
tests_of "$variant" >"$list"

# One runner per test: each has its own timeout, and a result of its own.
command='cd /kselftest'
limit=180
while read -r test seconds; do
	command+="
echo '# lab: $test starts' >/dev/kmsg
start=\$(date +%s)
./run_kselftest.sh -o $seconds -t $test
echo \"# lab: $test took \$((\$(date +%s) - start)) s\""
	limit=$((limit + seconds))
done <"$list"
command+='
exit 0'

# The judge prints the verdict; here only what shows that it goes on.
step "running the kernel's tests on the $variant kernel" \
	"$LAB/vm.sh" -k "$(kernel_dir "$variant")" -t "$limit" -o "$dir" "$command" |
	sed -u -nE 's/^# lab: (.*)/    \1/p' >&2
"$LAB/judge.py" --name "$variant kernel" --tests "$list" "$dir" | sed -E "s/^((not )?ok - )($variant )?/\1$variant /"
