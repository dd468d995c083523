#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Provide a sparse that 7.3 accepts: build/tools/sparse.
#
# Those of Debian 12 and 13 do not know __typeof_unqual__, and the kernel then
# builds with checking switched off.  forky's does; it runs here through forky's
# own loader.  The proof is a planted defect that it must find: a sparse that
# cannot even start says nothing, and nothing looks like a clean bill.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tools=$BUILD/tools
debs=$CACHE/sparse
root=$CACHE/sparse/root

finds_the_defect()
{
	printf '%s\n' 'static int v; static int __attribute__((noderef, address_space(1))) *user;' \
		'static int planted(void) { __typeof_unqual__(v) w = *user; return w; }' \
		'static int (*use)(void) = planted;' >"$tools/planted.c"
	"$tools/sparse" "$tools/planted.c" >"$tools/planted.log" 2>&1 || :
	grep -q 'dereference of noderef expression' "$tools/planted.log"
}

fetch()
{
	local deb

	rm -rf "$root.new"
	mkdir -p "$root.new"
	"$LAB/apt.sh" forky "$debs" sparse libc6 >"$tools/sparse.debs"
	while read -r deb; do
		dpkg-deb -x "$deb" "$root.new"
	done <"$tools/sparse.debs"
	mv "$root.new" "$root"
}

mkdir -p "$tools" "$debs"
[ -x "$root/usr/bin/sparse" ] || step 'getting sparse from forky' fetch
cat >"$tools/sparse" <<EOF
#!/bin/sh
lib='$root/usr/lib/x86_64-linux-gnu'
exec "\$lib/ld-linux-x86-64.so.2" --library-path "\$lib" "$root/usr/bin/sparse" "\$@"
EOF
chmod +x "$tools/sparse"
finds_the_defect || die "sparse did not find a planted defect" "wanted: a warning about $tools/planted.c"
[ "$("$TREE/scripts/checker-valid.sh" "$tools/sparse")" = 1 ] || die "the kernel refuses this sparse" "see scripts/checker-valid.sh"
