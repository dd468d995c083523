#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# KERNEL_SRC: what is not a 7.3 kernel is refused, with one clear line.
. "$(dirname "$0")/common.sh"

mkdir -p "$tmp/repo" "$tmp/old" "$tmp/none"
cp -r "$HERE/lab" "$HERE/base.mk" "$tmp/repo/"
kernel()
{
	mkdir -p "$1"
	printf '# SPDX\nVERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = 9\nEXTRAVERSION =\nNAME = x\n' "$2" "$3" >"$1/Makefile"
	touch "$1/Kbuild"
	printf '*.log\n' >"$1/.gitignore"
	echo tracked >"$1/kept.log"
}
src() { KERNEL_SRC=$1 "$tmp/repo/lab/source.sh"; }
tree=$tmp/repo/build/tree

kernel "$tmp/old" 6 12
fails 'an old kernel is refused' 'found 6\.12, wanted Linux 7\.3' src "$tmp/old"
fails 'a directory that is no kernel is refused' 'found no kernel source, wanted Linux 7\.3' src "$tmp/none"
fails 'a missing path is refused' 'no such file' src "$tmp/nothing"
tar -C "$tmp" -cf "$tmp/old.tar" old
fails 'a tarball of an old kernel is refused' 'found 6\.12, wanted Linux 7\.3' src "$tmp/old.tar"
ok 'nothing is left of what was refused' [ ! -e "$tree" ]

kernel "$tmp/dir" 7 3
ok 'a directory is taken' src "$tmp/dir"
ok 'ignored files are in the base too' git -C "$tree" cat-file -e refs/gmem/base:kept.log
base=$(git -C "$tree" rev-parse refs/gmem/base)
ok 'it is the same the second time' src "$tmp/dir"
ok 'and nothing was done' [ "$(git -C "$tree" rev-parse refs/gmem/base)" = "$base" ]
tar -C "$tmp" -czf "$tmp/dir.tar.gz" dir
ok 'a tarball is taken' src "$tmp/dir.tar.gz"
ok 'the same files make the same base' [ "$(git -C "$tree" rev-parse refs/gmem/base)" = "$base" ]
git -C "$tmp/dir" init -q
echo tree >"$tmp/dir/more"
git -C "$tmp/dir" add -A -f
git -C "$tmp/dir" commit -q -m x
ok 'a git tree is taken' src "$tmp/dir"
ok 'its files are there' [ "$(cat "$tree/more")" = tree ]
echo dirt >"$tree/dirt"
fails 'another source does not wipe unexported work' 'not committed' src "$tmp/dir.tar.gz"
exit $status
