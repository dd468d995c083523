#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What passes on the base and not with the series is noticed.
. "$(dirname "$0")/common.sh"

# A copy of the workshop, whose results are made up here.
mkdir -p "$tmp/build/ktest-normal-mmu"
cp -r "$HERE/lab" "$HERE/base.mk" "$tmp/"
printf '# comment\nok kvm:one_test\nnot ok kvm:other_test\n' >"$tmp/lab/baseline"
with() { printf '%s - normal, mmu: %s\n' "$@" >"$tmp/build/ktest-normal-mmu/verdict"; }
compare() { "$tmp/lab/baseline.sh" --compare; }

with ok kvm:one_test 'not ok' kvm:other_test
ok 'what fails on the base may fail' compare
with ok kvm:one_test ok kvm:other_test
ok 'or pass' compare
with 'not ok' kvm:one_test ok kvm:other_test
fails 'what passes on the base must pass' 'not ok - kvm:one_test: base ok, series not ok' compare
with ok kvm:other_test
fails 'and must be run' 'not ok - kvm:one_test: base ok, series not run' compare
exit $status
