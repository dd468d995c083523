#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make series: a mail series per topic group, and a git bundle of all.
#
# build/series/N-GROUP has the mails that git am takes, on a pristine 7.3 and the
# groups before; and cover-letter.mail, from patches/GROUP.cover: first the subject,
# after an empty line the text.  git adds shortlog and diffstat.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

out=$BUILD/series
mapfile -t commits < <(tgit rev-list --reverse "$BASE_REF..gmem")

# write_group NUMBER NAME FIRST LAST: FIRST and LAST count from 1.
write_group()
{
	local dir=$out/$1-$2 branch=gmem-$2 before=$BASE_REF

	[ -f "$ROOT/patches/$2.cover" ] || die "group $2 has no cover letter" "wanted: patches/$2.cover"
	[ "$3" = 1 ] || before=${commits[$3 - 2]}
	# git takes a cover letter's text from the description of a branch only.
	tgit branch -q -f "$branch" "${commits[$4 - 1]}"
	tgit config "branch.$branch.description" "$(cat "$ROOT/patches/$2.cover")"
	tgit -c user.name=series -c user.email=series@localhost format-patch -q -o "$dir" \
		--cover-letter --cover-from-description=subject --no-signature "$before..$branch"
	# It carries no patch, so git am would stumble over it among the others.
	mv "$dir/0000-cover-letter.patch" "$dir/cover-letter.mail"
	say "$dir: $(find "$dir" -name '*.patch' | wc -l) mails"
}

rm -rf "$out"
mkdir -p "$out"
number=0
while read -r name first last; do
	number=$((number + 1))
	write_group "$number" "$name" "$first" "$last"
done < <(series_groups)
tgit bundle create "$out/gmem.bundle" "$BASE_REF..gmem" 2>/dev/null
say "$out/gmem.bundle: ${#commits[@]} commits, branch gmem"
