#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Get the base, a 7.3 kernel, and make it the first commit of build/tree.
#
# By default it is Debian's package (base.mk), downloaded once for all clones;
# KERNEL_SRC=PATH takes a directory, a git tree (its HEAD) or a tarball instead.
# Nothing is done when build/tree was already made from the same source.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

KERNEL_SRC=${KERNEL_SRC:-}
new=$BUILD/tree.new

kernel_version()
{
	awk -F'[ =]+' '$1 == "VERSION" || $1 == "PATCHLEVEL" || $1 == "SUBLEVEL" { v = v "." $2 }
		/^EXTRAVERSION/ { print substr(v, 2); exit }' "$1/Makefile"
}

# check_kernel WHAT DIRECTORY: is it a 7.3 kernel?
check_kernel()
{
	local found

	found=$(kernel_version "$2" 2>/dev/null) || :
	found=${found%.*}
	[ -f "$2/Kbuild" ] && [ -n "$found" ] || found='no kernel source'
	[ "$found" = 7.3 ] || die "$1: found $found, wanted Linux 7.3"
}

sha256_is() { [ "$(sha256sum <"$2")" = "$1  -" ]; }

# Set $deb and $version: the pinned package, or the 7.3.y that replaced it.
find_deb()
{
	version=$BASE_VERSION
	deb=$CACHE/${BASE_PKG}_${version}_all.deb
	if [ -f "$deb" ] && sha256_is "$BASE_DEB_SHA256" "$deb"; then
		return
	fi
	if deb=$(step "downloading $BASE_PKG $version" \
			"$LAB/apt.sh" "$BASE_SUITE" "$CACHE" "$BASE_PKG=$version" 2>"$BUILD/source.log"); then
		sha256_is "$BASE_DEB_SHA256" "$deb" ||
			die "$deb is not the file that base.mk pins" "wanted SHA-256: $BASE_DEB_SHA256"
		return
	fi
	cat "$BUILD/source.log" >&2
	say "NOTE: $BASE_PKG $version could not be had; taking what $BASE_SUITE has now."
	deb=$(step "downloading $BASE_PKG" "$LAB/apt.sh" "$BASE_SUITE" "$CACHE" "$BASE_PKG") ||
		die "no $BASE_PKG to be had from $BASE_SUITE" "use KERNEL_SRC=PATH (a 7.3 kernel)"
	version=${deb##*/"$BASE_PKG"_}
	version=${version%_all.deb}
	say "NOTE: the base is $version, not the pinned $BASE_VERSION."
}

unpack_deb()
{
	local tar=$BUILD/unpack/usr/src/$BASE_PKG.tar.xz

	rm -rf "$BUILD/unpack"
	dpkg-deb -x "$deb" "$BUILD/unpack"
	if [ "$version" = "$BASE_VERSION" ]; then
		sha256_is "$BASE_TAR_SHA256" "$tar" ||
			die "$BASE_PKG.tar.xz is not the file that base.mk pins" "wanted SHA-256: $BASE_TAR_SHA256"
	fi
	tar -xf "$tar" -C "$new" --strip-components=1
	rm -rf "$BUILD/unpack"
	# Debian's .gitignore ends with a block that hides everything but
	# debian/ from git.
	sed -i -e '/^# Debian packaging/,$d' "$new/.gitignore"
}

# What identifies the source; changes when its content does.
source_id()
{
	if [ -z "$KERNEL_SRC" ]; then
		echo "deb $version"
	elif [ -f "$KERNEL_SRC" ]; then
		echo "tar $(sha256sum <"$KERNEL_SRC")"
	elif git -C "$KERNEL_SRC" rev-parse -q --verify 'HEAD:Makefile' >/dev/null 2>&1; then
		echo "git $(git -C "$KERNEL_SRC" rev-parse HEAD)"
	else
		echo "dir $(cd "$KERNEL_SRC" && find . -type f -printf '%P %s %T@\n' | sort | sha256sum)"
	fi
}

unpack_kernel_src()
{
	case $1 in
	tar*)	tar -xf "$KERNEL_SRC" -C "$new" --strip-components=1 ;;
	git*)	git -C "$KERNEL_SRC" archive HEAD | tar -x -C "$new" ;;
	dir*)	[ ! -e "$KERNEL_SRC/.config" ] ||
			die "$KERNEL_SRC was built in" "wanted: a clean source tree (make mrproper)"
		tar -c -C "$KERNEL_SRC" --exclude=./.git . | tar -x -C "$new" ;;
	esac
}

# The pristine kernel as one commit whose id depends on its files alone.
commit_base()
{
	local files added v

	v=$(kernel_version "$new")
	gitp init -q -b gmem "$new"
	# -f: the kernel tracks some files that its own rules ignore.
	gitp -C "$new" -c core.safecrlf=false -c core.autocrlf=false add -A -f
	files=$(find "$new" -path "$new/.git" -prune -o \( -type f -o -type l \) -print | wc -l)
	added=$(gitp -C "$new" ls-files | wc -l)
	[ "$files" = "$added" ] || die "git took $added files of $files of the base" "wanted: all of them"
	base_commit "$new" "Linux $v" "$(gitp -C "$new" write-tree)"
}

base_commit()
{
	local commit

	commit=$(echo "$2" | GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost \
		GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_NAME=base \
		GIT_COMMITTER_EMAIL=base@localhost GIT_COMMITTER_DATE='1700000000 +0000' \
		gitp -C "$1" commit-tree "$3")
	gitp -C "$1" update-ref "$BASE_REF" "$commit"
	gitp -C "$1" update-ref "$COMPOSED_REF" "$commit"
	gitp -C "$1" update-ref refs/heads/gmem "$commit"
}

# An amended or rebased commit stays the patch it was (lab/tree.sh).
config_tree()
{
	gitp -C "$new" config notes.rewriteRef refs/notes/patch
	gitp -C "$new" config notes.rewriteMode ignore
	gitp -C "$new" config gc.auto 0
}

version=$BASE_VERSION
if [ -n "$KERNEL_SRC" ]; then
	[ -e "$KERNEL_SRC" ] || die "KERNEL_SRC=$KERNEL_SRC: no such file or directory" "wanted: a Linux 7.3 directory, git tree or tarball"
	[ ! -d "$KERNEL_SRC" ] || check_kernel "KERNEL_SRC=$KERNEL_SRC" "$KERNEL_SRC"
elif [ -d "$TREE" ] && grep -qs '^deb ' "$BUILD/source.id"; then
	exit 0
fi

[ -n "$KERNEL_SRC" ] || find_deb
id=$(source_id)
if [ -d "$TREE" ] && [ "$id" = "$(cat "$BUILD/source.id" 2>/dev/null)" ]; then
	exit 0
fi
[ ! -d "$TREE" ] || "$LAB/tree.sh" --check

rm -rf "$new"
mkdir -p "$new"
if [ -n "$KERNEL_SRC" ]; then
	step "unpacking $KERNEL_SRC" unpack_kernel_src "$id"
	check_kernel "KERNEL_SRC=$KERNEL_SRC" "$new"
else
	step "unpacking $BASE_PKG $version" unpack_deb
	check_kernel "$BASE_PKG" "$new"
fi
step "committing the base" commit_base
config_tree

# Objects of another source would be taken for fresh: tar keeps old dates.
rm -rf "$BUILD/source.id" "$TREE" "$BUILD"/kernel "$BUILD"/kernel-* "$BUILD"/selftests
mv "$new" "$TREE"
echo "$id" >"$BUILD/source.id"
