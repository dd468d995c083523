#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make lint: check the series and the scripts; one TAP line per check.
#
#	lab/lint.sh [--checkpatch COMMIT]
#
# --checkpatch: only that, of one commit, and no output.
#
# Where the base is not clean itself, warnings are compared: a line that the
# base's version of a file does not give is ours.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
work=$BUILD/lint
status=0

# check WHAT COMMAND...: what it prints is shown if it fails.
check()
{
	local what=$1

	shift
	# A subshell of its own, so that set -e holds in it.
	set +e
	(set -e; "$@") >"$tmp/log" 2>&1
	local result=$?
	set -e
	if [ $result = 0 ]; then
		echo "ok - lint: $what"
	else
		echo "not ok - lint: $what"
		status=1
	fi
	[ $result = 0 ] && ! grep -q '^# ' "$tmp/log" || sed 's/^\(# \)\?/#   /' "$tmp/log" | head -n 60
}

commits() { tgit rev-list --reverse "$BASE_REF..gmem"; }
subject() { tgit log -1 --format=%s "$1"; }
# The files that the series changes or adds.
touched() { tgit diff --name-only --no-renames --diff-filter="${1:-AM}" "$BASE_REF" gmem; }

#
# The series and its files.
#

tracked() { (cd "$ROOT" && git ls-files -co --exclude-standard -- "$@"); }

# What is wrong with the series, in a function that has a "bad".
complain() { echo "$*"; bad=1; }

series_and_files_agree()
{
	local bad=0 name file

	series_names | sort | uniq -d | while read -r name; do echo "in series twice: $name"; done | { ! grep .; } || bad=1
	for name in $(series_names); do
		[ -f "$ROOT/patches/$name" ] || { complain "in series, but not in patches/: $name"; continue; }
		! grep -q '^new file mode' "$ROOT/patches/$name" || complain "$name has a new file in its diff"
		new_files "$ROOT/patches/$name" >>"$tmp/new"
	done
	for name in "$ROOT"/patches/*.patch; do
		[ ! -f "$name" ] || series_names | grep -qxF "$(basename "$name")" ||
			complain "in patches/, but not in series: $(basename "$name")"
	done
	touch "$tmp/new"
	sort "$tmp/new" | uniq -d | { ! grep . ; } || complain "brought by more than one patch"
	while read -r file; do
		[ -f "$ROOT/$file" ] || complain "listed, but not there: $file"
		! tgit cat-file -e "$BASE_REF:$file" 2>/dev/null || complain "already in the base: $file"
	done <"$tmp/new"
	# Files in the rooms of the kernel that no patch lists.
	tracked arch Documentation fs include kernel lib mm tools virt |
		grep -vxFf "$tmp/new" >"$tmp/orphans" || :
	[ ! -s "$tmp/orphans" ] || { cat "$tmp/orphans"; complain "brought by no patch"; }
	[ "$bad" = 0 ]
}

state() { (cd "$ROOT" && { find patches -type f; cat "$tmp/new"; } | sort | xargs -d '\n' sha256sum); }

export_is_noop()
{
	state >"$tmp/before"
	"$LAB/export.sh"
	state >"$tmp/after"
	diff "$tmp/before" "$tmp/after"
}

# A group can be posted: not too many mails for one reader, and a letter that says why.
groups_are_whole()
{
	local name first last next=1 bad=0 file

	while read -r name first last; do
		[ "$first" = "$next" ] || complain "patches before group $name are in none"
		[ $((last - first)) -lt 15 ] || complain "more than 15 patches: group $name"
		[ -f "$ROOT/patches/$name.cover" ] || complain "no cover letter: group $name"
		next=$((last + 1))
	done < <(series_groups)
	[ "$next" -gt "$(series_names | wc -l)" ] || complain "patches in no group"
	for file in "$ROOT"/patches/*.cover; do
		series_groups | grep -q "^$(basename "$file" .cover) " || complain "no such group: $file"
		! grep -nE '.{76}' "$file" || complain "lines of more than 75 columns: $file"
	done
	[ "$bad" = 0 ]
}

mails_apply()
{
	local src=$tmp/am mails paths

	"$LAB/series.sh"
	mapfile -t mails < <(find "$BUILD/series" -name '*.patch' | sort)
	mapfile -t paths < <(touched AMD | sed 's,^,/,')
	gitp clone -q --shared --no-checkout "$TREE" "$src"
	gitp -C "$src" sparse-checkout set --no-cone "${paths[@]}"
	gitp -C "$src" checkout -q --detach "$(tgit rev-parse "$BASE_REF")"
	gitp -C "$src" -c user.name=t -c user.email=t@localhost am -q "${mails[@]}"
	[ "$(gitp -C "$src" rev-parse 'HEAD^{tree}')" = "$(tgit rev-parse 'gmem^{tree}')" ]
}

#
# The kernel's own checkers.
#

# Both of checkpatch's helpers are optional to it; here they must work.
checkpatch_has_its_helpers()
{
	printf '%s\n' 'diff --git a/a.c b/a.c' 'new file mode 100644' '--- /dev/null' '+++ b/a.c' '@@ -0,0 +1,2 @@' \
		'+// SPDX-License-Identifier: GPL-2.0-nonsense' '+/* Recieve teh. */' >"$tmp/planted"
	(cd "$TREE" && scripts/checkpatch.pl --codespell --show-types "$tmp/planted") >"$tmp/planted.log" 2>&1 || :
	cat "$tmp/planted.log"
	if grep -E 'No codespell|ModuleNotFound' "$tmp/planted.log"; then
		return 1
	fi
	grep -q TYPO_SPELLING "$tmp/planted.log" && grep -q SPDX_LICENSE_TAG "$tmp/planted.log"
}

# codespell's, but for a word that is the kernel's.
dictionary()
{
	local data

	data=$(/usr/bin/python3 -c 'import codespell_lib; print(codespell_lib.__path__[0])')/data
	grep -v '^iput->' "$data/dictionary.txt" >"$tmp/dictionary"
	echo "$tmp/dictionary"
}

# checkpatch_mail TYPES PATH...: what the commit in $commit does to these paths.
checkpatch_mail()
{
	local ignore=$1

	shift
	tgit format-patch --stdout --no-signature "$commit~..$commit" -- "$@" >"$tmp/mail"
	[ ! -s "$tmp/mail" ] ||
		(cd "$TREE" && scripts/checkpatch.pl --strict --codespell --codespellfile "$(dictionary)" --no-signoff \
			--ignore "$ignore" --quiet --show-types "$tmp/mail")
}

# TRACE_EVENT() can't be written as checkpatch wants it.  What passed is remembered by
# what the commit does and says, and who looked.
checkpatch()
{
	local commit=$1 ignore status=0 passed

	passed=$CACHE/checkpatch/$({ tgit show --format=%B "$commit"; tgit show "gmem:scripts/checkpatch.pl"
		dpkg-query -W codespell; cat "$LAB/checkpatch.ignore" "$LAB/lint.sh"; } | sha256sum | cut -d ' ' -f 1)
	[ ! -f "$passed" ] || return 0
	ignore=$(sed -nE 's/^([A-Z_]+)\t.*/\1/p' "$LAB/checkpatch.ignore" | paste -sd,)
	checkpatch_mail "$ignore" . ':!include/trace' || status=1
	checkpatch_mail "$ignore,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT" include/trace || status=1
	[ "$status" != 0 ] || { mkdir -p "$CACHE/checkpatch" && touch "$passed"; }
	return "$status"
}

# Sparse and W=1 of each .c file that the series touches (other architectures than
# x86 excepted: no compiler here), in a tree of their own.
warnings_of()
{
	local files

	files=$(for f in $(touched | grep '\.c$' | grep -vE '^tools/|^arch/[^x]' || :); do
		! tgit cat-file -e "$1:$f" 2>/dev/null || echo "${f%.c}.o"; done)
	[ -n "$files" ] || return 0
	gitp -C "$work/tree" checkout -q --detach "$1"
	"$LAB/kconfig.sh" "$work/tree" "$work/out" "$LAB"/kconfig/{vm,coco,lint}.config
	# shellcheck disable=SC2086
	make -C "$work/tree" O="$work/out" -k -j"$(nproc)" W=1 C=2 CHECK="$BUILD/tools/sparse" $files \
		>"$work/make.log" 2>&1 || { grep -E 'error|\*\*\*' "$work/make.log" >&2; return 1; }
	grep -E '(warning|error):' "$work/make.log" |
		sed -E "s,$work/tree/,,g; s,^(../tree/),,; s/:[0-9]+(:[0-9]+)?:/:/" | sort || :
}

# What make htmldocs says of the directories in which the series touches something.
docs_warnings_of()
{
	local dirs

	dirs=$(touched | sed -nE 's,^Documentation/((virt/)?[^/]+)/.*\.rst$,\1,p' | sort -u | paste -sd ' ')
	gitp -C "$work/tree" checkout -q --detach "$1"
	# What Sphinx has read before it doesn't complain about again.
	rm -rf "$work/docs"
	make -C "$work/tree" O="$work/docs" SPHINXDIRS="$dirs" htmldocs >"$work/docs.log" 2>&1 ||
		{ tail "$work/docs.log" >&2; return 1; }
	grep -E 'WARNING|ERROR' "$work/docs.log" | sed -E "s,$work/tree/,,g; s/:[0-9]+:/:/" | sort || :
}

# no_new FUNCTION: what it says of our tree, and not of the base.
no_new()
{
	local base

	mkdir -p "$work"
	[ -d "$work/tree" ] || tgit worktree add -q --detach "$work/tree" "$BASE_REF"
	# The base's are the same until the base, the files or the options change.
	base=$work/base-$1-$({ tgit rev-parse "$BASE_REF"; touched; cat "$LAB"/kconfig/{vm,coco,lint}.config; } |
		sha256sum | cut -d ' ' -f 1)
	if [ ! -f "$base" ]; then
		"$1" "$(tgit rev-parse "$BASE_REF")" >"$tmp/base" || return
		mv "$tmp/base" "$base"
	fi
	"$1" "$(tgit rev-parse gmem)" >"$tmp/ours" || return
	! comm -13 "$base" "$tmp/ours" | grep .
}

kernel_doc()
{
	! (cd "$TREE" && PYTHONDONTWRITEBYTECODE=1 scripts/kernel-doc -none -Wall "$@") 2>&1 | grep .
}

#
# The workshop itself.
#

no_foreign_places()
{
	! (cd "$ROOT" && tracked | grep -v '^COPYING$' | xargs -d '\n' grep -nHIE \
		'(deb|security|snapshot|ftp)[.]debian[.]org|/(root|work|home)[/]' 2>/dev/null)
}

# SC2317: functions given to check() and step() are reached.  SC2015: A && B || C
# is meant, B being a test.  SC1091: base.mk is no script.
shell_check() { (cd "$ROOT" && shellcheck -x -P SCRIPTDIR -e SC2317,SC2015,SC1091 -s "$@"); }

[ -d "$TREE" ] || die "there is no build/tree" "make tree composes it"
if [ "${1:-}" = --checkpatch ]; then
	checkpatch "$2" >/dev/null 2>&1
	exit
fi
check 'series and files agree' series_and_files_agree
check 'topic groups are whole' groups_are_whole
if base_is_pinned; then
	check 'export changes nothing' export_is_noop
else
	echo 'ok - lint: export changes nothing # SKIP the base is not the pinned one'
fi
check 'sparse finds a planted defect' "$LAB/sparse.sh"
if [ -n "$(commits)" ]; then
	check 'git am takes the mails on the pristine base' mails_apply
	check 'checkpatch finds a planted misspelling and a bad license' checkpatch_has_its_helpers
	# On all cores; who passes is remembered, and who doesn't tells when it is its turn.
	commits | xargs -P "$(nproc)" -I '{}' "$LAB/lint.sh" --checkpatch '{}' || :
	for commit in $(commits); do
		check "checkpatch: $(subject "$commit")" checkpatch "$commit"
	done
	check 'no new warning from sparse or W=1' no_new warnings_of
	check 'no new warning from make htmldocs' no_new docs_warnings_of
fi
mapfile -t ours < <(grep -hE '\.[ch]$' "$tmp/new" | grep -v '^tools/' || :)
if [ ${#ours[@]} -gt 0 ]; then
	check 'kernel-doc of our files' kernel_doc "${ours[@]}"
	cd "$ROOT"
	check 'sizes of our files' "$LAB/sizes.py" "${ours[@]}"
fi
check 'shellcheck' shell_check bash "$LAB"/*.sh "$LAB"/t/*.sh "$ROOT/.ci/run"
check 'shellcheck of the selftests' shell_check bash "$ROOT"/tools/testing/selftests/*/*.sh
check "shellcheck of the VM's init" shell_check sh "$LAB/init"
check 'no host and no path of one machine' no_foreign_places
exit $status
