#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Compose the series: build/tree, branch gmem, gets one commit per patch.
#
#	lab/tree.sh [--edit | --keep | --check]
#
# --edit	say what to do next
# --keep	leave a tree with unexported work as it is, and say so
# --check	only look whether there is unexported work
#
# The commits are made without a work tree; then one reset touches the files
# that really differ, and no others, so that builds stay incremental.  Ids depend
# on the patches and the base alone.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

mode=${1:-}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

unexported()
{
	local head

	[ -z "$(tgit status --porcelain | head -n 1)" ] || { echo "changes that are not committed"; return; }
	[ "$(tgit symbolic-ref -q HEAD)" = refs/heads/gmem ] || { echo "another branch than gmem checked out"; return; }
	head=$(tgit rev-parse HEAD)
	[ "$head" = "$(tgit rev-parse "$COMPOSED_REF")" ] || echo "commits that were not exported"
}

refuse_unexported()
{
	local what

	what=$(unexported)
	[ -n "$what" ] || return 0
	if [ "$mode" = --keep ]; then
		say "note: build/tree has $what; using it as it is"
		exit 0
	fi
	die "build/tree has $what" \
		"to keep that: commit on branch gmem in build/tree, then make export" \
		"to drop it: git -C build/tree checkout -f gmem && git -C build/tree reset --hard $COMPOSED_REF && git -C build/tree clean -fd"
}

# The index that the series is composed in.
igit() { GIT_INDEX_FILE=$tmp/index tgit "$@"; }

# What git apply -v says, as: file, line of the hunk, the hunk's header.
name_conflicts()
{
	local file line

	sed -nE 's/^error: patch failed: (.*):([0-9]+)$/\1 \2/p' "$tmp/apply.log" |
	while read -r file line; do
		say "patches/$1: does not apply to $file:"
		say "    $(awk -v f="+++ b/$file" -v l="$line" '/^\+\+\+ / { in_f = $0 == f }
			in_f && /^@@ / && index($2 ",", "-" l ",") == 1' "$tmp/patch" | head -n 1)"
	done
	grep -E '^error: ' "$tmp/apply.log" | grep -v 'while searching for' >&2 || :
}

apply_hooks()
{
	local name=$1

	grep -q '^diff --git ' "$tmp/patch" || return 0
	if ! igit apply -v --cached --whitespace=nowarn "$tmp/patch" >"$tmp/apply.log" 2>&1; then
		name_conflicts "$name"
		die "patches/$name does not apply" "wanted: the base (base.mk) plus the patches before it"
	fi
	grep -E '^(Hunk|Checking patch).*|offset' "$tmp/apply.log" | grep -B 1 'offset' >"$tmp/offsets" || return 0
	if base_is_pinned || ! [ -f "$BUILD/source.id" ]; then
		cat "$tmp/offsets" >&2
		die "patches/$name applies only with an offset" "wanted: exact line numbers (make export writes them)"
	fi
	say "note: patches/$name applies with an offset; this base is not the pinned one"
}

add_new_files()
{
	local name=$1 file mode blob

	while read -r file; do
		[ -f "$ROOT/$file" ] && [ ! -L "$ROOT/$file" ] ||
			die "patches/$name lists $file, which is not here" "wanted: a regular file at that path in the repository"
		[ -z "$(igit ls-files -- "$file")" ] ||
			die "patches/$name brings $file, which the tree already has"
		mode=100644
		[ ! -x "$ROOT/$file" ] || mode=100755
		blob=$(tgit hash-object -w --no-filters "$ROOT/$file")
		igit update-index --add --cacheinfo "$mode,$blob,$file"
	done < <(new_files "$tmp/patch")
}

header() { sed -n "s/^$1: //p" "$tmp/info"; }

# Author and date come from the mail; the committer is nobody in particular.
commit()
{
	local author email date

	author=$(header Author) email=$(header Email) date=$(header Date)
	{ header Subject; echo; cat "$tmp/msg"; } | tgit stripspace |
	GIT_AUTHOR_NAME=$author GIT_AUTHOR_EMAIL=$email GIT_AUTHOR_DATE=$date \
	GIT_COMMITTER_NAME=series GIT_COMMITTER_EMAIL=series@localhost GIT_COMMITTER_DATE=$date \
		tgit commit-tree -p "$1" "$(igit write-tree)"
}

# A note ties the commit to its patch file, whatever becomes of its subject.
note() { tgit -c user.name=series -c user.email=series@localhost notes --ref=patch add -f -m "$2" "$1"; }

compose()
{
	local head name patch

	head=$(tgit rev-parse "$BASE_REF")
	igit read-tree "$head"
	for name in $(series_names); do
		patch=$ROOT/patches/$name
		[ -f "$patch" ] || die "patches/series names $name, which is not there"
		tgit mailinfo -b --no-scissors --encoding=UTF-8 "$tmp/msg" "$tmp/patch" <"$patch" >"$tmp/info"
		apply_hooks "$name"
		add_new_files "$name"
		head=$(commit "$head")
		note "$head" "${name%.patch}" 2>/dev/null
	done
	echo "$head" >"$tmp/head"
}

case $mode in
''|--edit|--keep|--check) ;;
*) die "unknown argument: $mode" ;;
esac

[ -d "$TREE" ] || die "there is no build/tree" "make source gets the base"
refuse_unexported
[ "$mode" != --check ] || exit 0

compose
head=$(cat "$tmp/head")
if [ "$head" != "$(tgit rev-parse HEAD)" ]; then
	tgit reset -q --keep "$head"
fi
tgit update-ref "$COMPOSED_REF" "$head"

[ "$mode" != --edit ] || cat >&2 <<'EOF'
build/tree, branch gmem, has one commit per patch.  Next:
    cd build/tree
    edit; git commit --fixup=COMMIT (or a new commit)
    git rebase -i --autosquash refs/gmem/base
    cd ../..; make export kernel run CMD='...'
EOF
