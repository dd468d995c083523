#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Run the KUnit tests of mm/hugetlb_split.c (CONFIG_HUGETLB_SPLIT_KUNIT_TEST) on pages
# of all kinds.  While they are about others who look at the pages, there are others
# who look at all pages of the system.
#
# The pages are those that the pool has at the start, and, where it can be made anew,
# pages without and with HVO that were allocated at run time.
set -u

kunit=/sys/kernel/debug/kunit
hvo=/proc/sys/vm/hugetlb_optimize_vmemmap
pools='/sys/devices/system/node/node*/hugepages/hugepages-*kB/nr_hugepages'
suites='hugetlb_split_cut hugetlb_split hugetlb_split_life hugetlb_split_error hugetlb_split_cost'
faults=/sys/kernel/debug
nr=0
walker=

# Let allocations that may sleep fail, too; the tests say which.
allow_faults()
{
	for f in failslab fail_page_alloc; do
		[ -d "$faults/$f" ] || return
		echo N >"$faults/$f/ignore-gfp-wait"
		echo 0 >"$faults/$f/verbose"
	done
	echo 0 >"$faults/fail_page_alloc/min-order"
}

walk()
{
	while :; do
		for file in /proc/kpageflags /proc/kpagecount /proc/kpagecgroup \
			/sys/kernel/mm/page_idle/bitmap; do
			[ ! -r "$file" ] || cat "$file" >/dev/null
		done
		echo 1 >/proc/sys/vm/compact_memory
	done 2>/dev/null
}

start_walk()
{
	walk &
	walker=$!
}

stop_walk()
{
	[ -z "$walker" ] || kill "$walker"
	walker=
}

# One line for each case and page size, and why it failed.
flatten()
{
	awk -v nr="$nr" -v what="$1" '
	/# Subtest: / { name = $NF }
	/FAILED|Expected|==|^struct page/ { print "#" $0 }
	/^    # test_[a-z_]*: .*(us|bytes|splits|alloc)/ { print "#" $0 }
	!/^    ( {4})?(not )?ok / { next }
	{
		deep = /^ {8}/
		result = $1 == "not" ? "not ok" : "ok"
		sub(/^ *(not )?ok [0-9]+ /, "")
		if (deep)
			seen[name] = 1
		else if ($1 in seen)
			next
		print result, ++nr, "-", what ":", (deep ? name " " : "") $0
	}'
}

run_suites()
{
	for suite in $suites; do
		# Of memory errors only where the kernel handles them.
		[ -d "$kunit/$suite" ] || continue
		[ "$suite" != hugetlb_split_life ] || start_walk
		echo 1 >"$kunit/$suite/run"
		stop_walk
		flatten "$suite, $1" <"$kunit/$suite/results" >>"$results"
		was=$nr
		nr=$(grep -cE '^(not )?ok' "$results")
		[ "$nr" -gt "$was" ] && continue
		nr=$((nr + 1))
		echo "not ok $nr - $suite, $1: no results" >>"$results"
	done
}

# A pool that is filled from CMA is empty at boot.
fill_pools()
{
	for pool in $pools; do
		[ "$(cat "$pool")" != 0 ] || echo 1 >"$pool"
	done
}

# Replace all pages of the pools by new ones.
renew_pools()
{
	for pool in $pools; do
		was=$(cat "$pool")
		echo 0 >"$pool"
		echo "$was" >"$pool"
	done
}

if [ ! -d "$kunit/hugetlb_split" ]; then
	echo '1..0 # SKIP CONFIG_HUGETLB_SPLIT_KUNIT_TEST and CONFIG_KUNIT_DEBUGFS are not set'
	exit 4
fi

results=$(mktemp)
allow_faults
trap 'stop_walk; rm -f "$results"' EXIT

fill_pools
run_suites 'pages as they are'
if [ -w "$hvo" ]; then
	was_hvo=$(cat "$hvo")
	echo 0 >"$hvo"
	renew_pools
	run_suites 'new pages without HVO'
	echo 1 >"$hvo"
	renew_pools
	run_suites 'new pages with HVO'
	echo "$was_hvo" >"$hvo"
fi
echo 'TAP version 13'
echo "1..$nr"
cat "$results"
! grep -q '^not ok' "$results"
