#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What the documentation shows is what works: its C examples are compiled and run.
. "$(dirname "$0")/common.sh"

rst=$HERE/Documentation/virt/kvm/guest_memfd.rst
uapi=$HERE/build/selftests/usr/include

NR_2M=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages

# How the page says that a pool is made larger at run time.
grow() { sed -n 's/^  \(echo [0-9]* > .*\)$/\1/p' "$rst"; }

extract()
{
	# shellcheck disable=SC2016	# a fence, not a command
	sed -n '/^```c$/,/^```$/{//!p}' "$HERE/README.md" >"$tmp/create.inc"
	sed -n '/^  static int convert(/,/^  }$/p' "$rst" >"$tmp/convert.inc"
	[ -s "$tmp/create.inc" ] && [ -s "$tmp/convert.inc" ]
}

build() { gcc -Wall -Werror -static -isystem "$uapi" -I "$tmp" -o "$tmp/example" "$HERE/lab/t/docs_example.c"; }

run()
{
	KERNEL_ARGS=kvm.gmem_in_place_conversion=1 "$HERE/lab/vm.sh" -t 120 -o "$tmp/vm" \
		-f "$tmp/example" "/lab/example && $(grow) && cat $NR_2M" | tee "$tmp/out"
	"$HERE/lab/judge.py" "$tmp/vm"
}

ok 'README.md and guest_memfd.rst have their examples' extract
ok 'they compile without a warning' build
ok 'they run, and do what they say' run
ok 'on a page of 1G' grep -qx '1G page: yes' "$tmp/out"
ok 'the pool of 2M pages grows as the page says' grep -qx 512 "$tmp/out"

# The pool of the VM, which other tests count, is set up as the page says.
for file in "$HERE/lab/vm.sh" "$rst"; do
	ok "$(basename "$file") sets up a pool of 1G pages" grep -q 'hugepagesz=1G hugepages=0:2,1:2' "$file"
	ok "$(basename "$file") asks for HVO" grep -q 'hugetlb_free_vmemmap=on' "$file"
done
exit $status
