#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The VM, for real: statuses come back, and what goes wrong is noticed.
# shellcheck disable=SC2016
. "$(dirname "$0")/common.sh"

run() { "$HERE/lab/run.sh" -t 120 "$@"; }
code() { local s=0; run "$1" >"$tmp/out" 2>&1 || s=$?; echo $s; }

ok 'a command runs' run 'echo out; exit 0'
ok "a command's status comes back" [ "$(code 'echo "a  \"b\" $HOME" '"'c'"'; exit 42')" = 42 ]
ok 'its output too, unquoted and unbroken' [ "$(head -n 1 "$tmp/out")" = 'a  "b" / c' ]
ok 'two 1G pages on each of two nodes' run 'cd /sys/devices/system/node; [ "$(cat node[01]/hugepages/hugepages-1048576kB/free_hugepages | tr -d "\n")" = 22 ]'
ok 'nothing runs on the first CPU' run '[ "$(grep -c "^Cpus_allowed_list:.1-2$" /proc/self/status)" = 1 ]'
ok 'KVM has nested paging and 1G pages' run 'grep -q "svm.*npt" /proc/cpuinfo && grep -q pdpe1gb /proc/cpuinfo && test -c /dev/kvm'
fails 'a WARNING fails the run' 'kernel splat.*WARNING' run 'echo WARNING >/sys/kernel/debug/provoke-crash/DIRECT; exit 0'
fails 'an oops fails the run' 'kernel splat' run 'echo BUG >/sys/kernel/debug/provoke-crash/DIRECT; exit 0'
fails 'a VM that hangs fails the run' 'ended by: timeout' run -t 15 'sleep 1000'
fails 'a VM that says nothing fails the run' 'ended by: timeout' run -q 15 'sleep 1000'
fails 'a VM that hangs says where' 'Kernel panic - not syncing: NMI' run -q 15 'sleep 1000'
fails 'a VM that reboots fails the run' 'ended by: reset' run 'reboot -f'
MAX_LOG=100000 fails 'endless output fails the run' 'ended by: flood' run 'yes "$(seq 1 1000)"'

"$HERE/lab/vm.sh" -t 60 -o "$tmp/vm" 'echo nothing to see' >/dev/null
echo 'kvm:guest_memfd_test 100' >"$tmp/tests"
fails 'a test that prints no result fails' 'not ok - kvm:guest_memfd_test: printed a result' "$HERE/lab/judge.py" --tests "$tmp/tests" "$tmp/vm"
exit $status
