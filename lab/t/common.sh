# SPDX-License-Identifier: GPL-2.0-only
# Shared by the workshop's own tests: TAP, and a repository to play in.
# shellcheck shell=bash disable=SC2034

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
NAME=$(basename "$0" .sh)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0

# The user's own settings must not matter, and these tests must not need any.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Tester GIT_AUTHOR_EMAIL=tester@localhost
export GIT_COMMITTER_NAME=Tester GIT_COMMITTER_EMAIL=tester@localhost

# ok WHAT COMMAND...: the command must succeed.
ok()
{
	local what=$1

	shift
	if "$@" >"$tmp/ok.log" 2>&1; then
		echo "ok - $NAME: $what"
	else
		echo "not ok - $NAME: $what"
		head -c 4000 "$tmp/ok.log" | sed 's/^/#   /'
		status=1
	fi
}

# fails WHAT TEXT COMMAND...: it must fail, and say TEXT.
fails()
{
	local what=$1 text=$2

	shift 2
	if "$@" >"$tmp/fails.log" 2>&1; then
		echo "it succeeded" >>"$tmp/fails.log"
	elif grep -qE -e "$text" "$tmp/fails.log"; then
		echo "ok - $NAME: $what"
		return
	fi
	echo "not ok - $NAME: $what (wanted a failure that says: $text)"
	head -c 4000 "$tmp/fails.log" | sed 's/^/#   /'
	status=1
}

# A repository with our scripts and a base of three small files.
play_repository()
{
	repo=$tmp/repo
	tree=$repo/build/tree
	mkdir -p "$repo/patches" "$tree/mm" "$tree/virt"
	cp -r "$HERE/lab" "$HERE/base.mk" "$repo/"
	printf '/build/\n__pycache__/\n' >"$repo/.gitignore"
	seq 1 60 >"$tree/mm/a.c"
	seq 1 60 >"$tree/mm/b.c"
	seq 1 60 >"$tree/virt/c.c"
	git -C "$tree" init -q -b gmem
	git -C "$tree" add -A
	git -C "$tree" commit -q -m base
	for ref in base composed; do
		git -C "$tree" update-ref refs/gmem/$ref HEAD
	done
	git -C "$tree" config notes.rewriteRef refs/notes/patch
	git -C "$tree" config notes.rewriteMode ignore
	touch "$repo/patches/series"
	git -C "$repo" init -q -b main
	git -C "$repo" add -A
	git -C "$repo" commit -q -m begin
}
