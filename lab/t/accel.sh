#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The accelerator: KVM only where the host can nest.
. "$(dirname "$0")/common.sh"

# accel MODULE NESTED: what is chosen on such a host.
accel()
{
	rm -rf "$tmp/sys"
	mkdir -p "$tmp/sys/module/$1/parameters"
	[ -z "$2" ] || echo "$2" >"$tmp/sys/module/$1/parameters/nested"
	SYSFS=$tmp/sys DEV_KVM=${3:-/dev/null} "$HERE/lab/vm.sh" --accel
}

ok 'no module for this CPU: TCG' [ "$(accel kvm_pvm '')" = tcg ]
ok 'AMD without nesting: TCG' [ "$(accel kvm_amd 0)" = tcg ]
ok 'Intel without nesting: TCG' [ "$(accel kvm_intel N)" = tcg ]
ok 'AMD with nesting: KVM' [ "$(accel kvm_amd 1)" = kvm ]
ok 'Intel with nesting: KVM' [ "$(accel kvm_intel Y)" = kvm ]
ok 'nesting, but no /dev/kvm: TCG' [ "$(accel kvm_amd 1 /nonexistent)" = tcg ]
exit $status
