#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The judge on made-up logs: every way for a run to go wrong fails it.
. "$(dirname "$0")/common.sh"

run=$tmp/run
judge() { "$HERE/lab/judge.py" "$@" "$run"; }
tests() { echo 'kvm:a_test 100' >"$tmp/tests"; judge --tests "$tmp/tests"; }
count() { tests | grep -cE "$1"; }

# A run that is well: one test with two subtests, one of them skipped.
good()
{
	mkdir -p "$run"
	printf '[ 0.1] Linux version\n[ 2.0] reboot: Power down\n' >"$run/console.log"
	printf 'exit 0\nend\n' >"$run/status"
	echo poweroff >"$run/ended"
	cat >"$run/out.log" <<-EOF
	TAP version 13
	1..1
	# overriding timeout to 100
	# selftests: kvm: a_test
	# TAP version 13
	# 1..2
	# # some text
	# ok 1 first
	# ok 2 second # SKIP no such thing
	# # Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0
	ok 1 selftests: kvm: a_test
	# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0
	# lab: kvm:a_test took 3 s
	EOF
}

good
ok 'a good run passes' tests
ok 'subtests count, their parent does not' [ "$(count '^ok - kvm:a_test')" = 2 ]
ok 'a skip is a skip, with its reason' [ "$(count '# SKIP no such thing')" = 1 ]

while read -r line; do
	good
	echo "[ 1.0] $line" >>"$run/console.log"
	fails "a splat: ${line:0:50}" 'kernel splat' tests
done <<'EOF'
WARNING: at mm/hugetlb.c:123 alloc_hugetlb_folio+0x1/0x2, CPU#0: a/1
WARNING: possible circular locking dependency detected
WARNING: possible recursive locking detected
WARNING: inconsistent lock state
WARNING: suspicious RCU usage
BUG: KASAN: slab-use-after-free in foo+0x1/0x2
BUG: sleeping function called from invalid context at mm/x.c:1
BUG: Bad page state in process a pfn:1
BUG: unable to handle page fault for address: 0
kernel BUG at mm/hugetlb.c:123!
Oops: 0000 [#1] SMP
Oops: general protection fault, probably for non-canonical address 0
UBSAN: array-index-out-of-bounds in a.c:1
refcount_t: underflow; use-after-free.
rcu: INFO: rcu_preempt self-detected stall on CPU
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
INFO: task a:1 blocked for more than 120 seconds.
watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]
kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
kmemleak: Kernel memory leak detector disabled
Kernel panic - not syncing: x
EOF

good
for end in reset timeout flood; do
	echo $end >"$run/ended"
	fails "a VM that ended by $end" "ended by: $end" tests
done
good
echo 'exit 0' >"$run/status"
fails 'no end mark' 'powered off by itself' tests
good
: >"$run/status"
fails 'no status' 'gave its status' tests
good
: >"$run/out.log"
fails 'a test without a result' 'kvm:a_test: printed a result' tests
good
sed -i '/^# ok 2/d; /^ok 1/d' "$run/out.log"
fails 'a test that stopped in the middle' 'kvm:a_test: printed a result' tests
good
sed -i '/^# ok 2/d' "$run/out.log"
fails 'fewer results than planned' 'not ok - kvm:a_test' tests
good
sed -i 's/^# ok 1/# not ok 1/' "$run/out.log"
fails 'a failed subtest' 'not ok - kvm:a_test: first' tests
good
sed -i 's/^ok 1 selftests.*/& # exit=254/; s/^ok 1/not ok 1/' "$run/out.log"
fails 'a test that failed after good subtests' 'not ok - kvm:a_test' tests
good
sed -i '/^# TAP/,/^# # Totals/d; s/^ok 1.*/1..0 # SKIP - Requirement not met: x\n& # SKIP/' "$run/out.log"
ok 'a skipped test passes' tests
ok 'the reason is the one in the plan' [ "$(count 'ok - kvm:a_test # SKIP Requirement not met: x')" = 1 ]
good
echo 'exit 7' >"$run/status"
echo end >>"$run/status"
judge >/dev/null
ok "the command's status is passed on" [ $? = 7 ]
exit $status
