#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make series: the mails that git am takes on a pristine 7.3, and a git bundle.
#
# patches/cover-letter.txt is the cover letter: first the subject, after an empty
# line the text.  git adds the shortlog and the diffstat: cover-letter.mail.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

out=$BUILD/series
rm -rf "$out"
mkdir -p "$out"
[ -n "$(tgit rev-list -n 1 "$BASE_REF..gmem")" ] || { say "the series is empty"; exit 0; }

cover=()
if [ -f "$ROOT/patches/cover-letter.txt" ]; then
	cover=(--cover-letter --cover-from-description=subject)
	tgit config branch.gmem.description "$(cat "$ROOT/patches/cover-letter.txt")"
fi
tgit -c user.name=series -c user.email=series@localhost format-patch -q -o "$out" \
	"${cover[@]}" --no-signature "$BASE_REF..gmem"
# It carries no patch, so git am would stumble over it among the others.
[ ! -f "$out/0000-cover-letter.patch" ] || mv "$out/0000-cover-letter.patch" "$out/cover-letter.mail"
tgit bundle create "$out/gmem.bundle" "$BASE_REF..gmem" 2>/dev/null
say "$out: $(find "$out" -name '*.patch' | wc -l) mails, and gmem.bundle"
