#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Write the commits of build/tree back into the repository.
#
# Each commit becomes patches/<slug>.patch, the message and the hooks into files
# that the kernel has; the files that it brings lie whole at their own path in
# the repository.  What the series lost is removed.  In the end the result is
# composed again, and must give the same trees.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

[ -d "$TREE" ] || die "there is no build/tree" "make tree composes it"
[ -z "$(tgit status --porcelain | head -n 1)" ] ||
	die "build/tree has changes that are not committed" "commit them (git commit --fixup=COMMIT, git rebase -i --autosquash $BASE_REF)"
[ "$(tgit symbolic-ref -q HEAD)" = refs/heads/gmem ] ||
	die "build/tree is not on branch gmem" "finish the rebase, or: git -C build/tree checkout gmem"
[ -z "$(tgit rev-list --merges "$BASE_REF..HEAD")" ] || die "the series has a merge" "wanted: a straight line of commits"
tgit merge-base --is-ancestor "$BASE_REF" HEAD || die "branch gmem does not begin at $BASE_REF"

# The name that a patch got at birth, or one made of its subject.
slug()
{
	tgit notes --ref=patch show "$1" 2>/dev/null | head -n 1 | grep . && return
	tgit log -1 --format=%s "$1" | tr '[:upper:]' '[:lower:]' |
		sed -E 's/[^a-z0-9]+/-/g; s/^-+//; s/^(.{1,60})(-.*)?$/\1/; s/-+$//'
}

# The files that a commit brings; a new file belongs to one commit, whole.
brought() { tgit diff-tree -r --no-commit-id --no-renames --name-only --diff-filter=A "$1"; }

check_new_files()
{
	local commit=$1 file first

	while read -r file; do
		if first=$(grep -m 1 " $file\$" "$tmp/owners"); then
			die "commit \"$(tgit log -1 --format=%s "$commit")\" changes $file," \
				"which commit \"$(tgit log -1 --format=%s "${first%% *}")\" brought" \
				"wanted: a new file comes whole, in one commit; move the change there"
		fi
	done < <(tgit diff-tree -r --no-commit-id --no-renames --name-only "$commit")
	brought "$commit" | sed "s/^/$commit /" >>"$tmp/owners"
}

# The mail without the new files' sections, their names below "---" instead.
hooks_only()
{
	tgit format-patch -1 --stdout --zero-commit --no-signature --full-index --no-renames \
		--no-stat -N --no-attach --no-thread --no-color-moved "$1" |
	awk -v list="$tmp/brought" '
		function rule(f) { print "---"; while ((getline f < list) > 0) print "New-file: " f; print ""; ruled = 1 }
		function flush() { if (!new) printf "%s", section; section = ""; new = 0 }
		/^diff --git / { if (!ruled) rule(); flush(); in_diff = 1 }
		in_diff { if (section ~ /^[^\n]*\n$/ && /^new file mode /) new = 1; section = section $0 "\n"; next }
		!in_body { print; in_body = /^$/; next }
		/^$/ { blank = blank "\n"; next }
		{ printf "%s", blank; blank = ""; print }
		END { if (!ruled) rule(); flush() }'
}

write_new_files()
{
	local file mode

	while read -r file; do
		mode=$(tgit ls-tree "$1" -- "$file" | cut -d ' ' -f 1)
		case $mode in
		100644) mode=644 ;;
		100755) mode=755 ;;
		*) die "$file is not a regular file" ;;
		esac
		mkdir -p "$ROOT/$(dirname "$file")"
		tgit cat-file blob "$1:$file" >"$tmp/file"
		cmp -s "$tmp/file" "$ROOT/$file" || cp "$tmp/file" "$ROOT/$file"
		chmod $mode "$ROOT/$file"
	done <"$tmp/brought"
}

export_commit()
{
	local commit=$1 name

	name=$(slug "$commit").patch
	! grep -qxF "$name" "$tmp/series" || die "two commits want the name patches/$name" \
		"give one another: git -C build/tree notes --ref=patch add -f -m SLUG COMMIT"
	check_new_files "$commit"
	brought "$commit" >"$tmp/brought"
	hooks_only "$commit" >"$tmp/$name"
	cmp -s "$tmp/$name" "$ROOT/patches/$name" || cp "$tmp/$name" "$ROOT/patches/$name"
	write_new_files "$commit"
	echo "$name" >>"$tmp/series"
}

# Comments stay above the patch that they stood above; those on top, on top.
write_series()
{
	awk -v new="$tmp/series" '
		FNR == 1 && /^#/ { top = 1 }
		/^[ \t]*(#|$)/ { pending = pending $0 "\n"; if (top && /^[ \t]*$/) { head = pending; pending = ""; top = 0 }; next }
		{ name = $1; above[name] = pending; line[name] = $0; pending = ""; top = 0 }
		END {
			printf "%s", head
			while ((getline name < new) > 0)
				if (name in line) print above[name] line[name]; else print name
			printf "%s", pending
		}' "$ROOT/patches/series" >"$tmp/series.new"
	cmp -s "$tmp/series.new" "$ROOT/patches/series" || cp "$tmp/series.new" "$ROOT/patches/series"
}

# What the old series had and the new one has not.
remove_gone()
{
	local name file

	while read -r name; do
		rm -f "$ROOT/patches/$name"
	done < <(cd "$ROOT/patches" && find . -name '*.patch' -printf '%P\n' | grep -vxFf "$tmp/series")
	while read -r file; do
		rm -f "$ROOT/$file"
		(cd "$ROOT" && rmdir -p --ignore-fail-on-non-empty "$(dirname "$file")" 2>/dev/null) || :
	done < <(cut -d ' ' -f 2- "$tmp/owners" | grep -vxFf - "$tmp/old-files")
}

mkdir -p "$ROOT/patches"
touch "$ROOT/patches/series" "$tmp/owners" "$tmp/series"
for patch in "$ROOT"/patches/*.patch; do
	[ ! -f "$patch" ] || new_files "$patch"
done >"$tmp/old-files"

tgit rev-list --reverse "$BASE_REF..HEAD" >"$tmp/commits"
while read -r commit; do
	export_commit "$commit"
done <"$tmp/commits"
write_series
remove_gone

# The proof: composed again, each commit has the tree that it had.
tgit log --format=%T "$BASE_REF..HEAD" >"$tmp/trees"
old=$(tgit rev-parse HEAD)
tgit update-ref "$COMPOSED_REF" HEAD
"$LAB/tree.sh"
tgit log --format=%T "$BASE_REF..HEAD" | cmp -s - "$tmp/trees" ||
	die "the exported series does not give back the exported commits" \
		"they are $old in build/tree; git -C build/tree diff $old gmem shows the difference"
say "exported $(wc -l <"$tmp/commits") commits"
