#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Compose and export: on a small made-up series, both ways and in bad cases.
. "$(dirname "$0")/common.sh"

t() { git -C "$tree" "$@"; }
clean() { [ -z "$(git -C "$repo" status --porcelain)" ]; }
keep() { git -C "$repo" add -A && git -C "$repo" commit -q -m "$1"; }
export_() { "$repo/lab/export.sh"; }
compose() { "$repo/lab/tree.sh"; }
head_() { t rev-parse gmem; }

play_repository
ok 'an empty series composes' compose
ok 'an empty series exports' export_
ok 'an empty series leaves the repository clean' clean

# A hook and a new file; new files only, with a mode; hooks only.
sed -i 's/^30$/thirty/' "$tree/mm/a.c"
echo 'new' >"$tree/mm/new.c"
t add -A
t commit -q -m 'mm: hugetlb: Add a file and a hook' -m 'A body, with an é.'
mkdir -p "$tree/tools"
printf '#!/bin/sh\n' >"$tree/tools/run.sh"
chmod +x "$tree/tools/run.sh"
t add -A
t commit -q -m 'tools: Only new files'
sed -i 's/^50$/fifty/' "$tree/mm/a.c"
t commit -q -am 'KVM: guest_memfd: Hooks only, under a subject that is so long that a mail header must fold it'
trees=$(t log --format=%T)

ok 'three commits export' export_
ok 'their trees are the same afterwards' [ "$trees" = "$(t log --format=%T)" ]
ok 'patch names come from the subjects' [ -f "$repo/patches/mm-hugetlb-add-a-file-and-a-hook.patch" ]
ok 'a new file lies at its own path' cmp "$tree/mm/new.c" "$repo/mm/new.c"
ok 'a script stays executable' [ -x "$repo/tools/run.sh" ]
ok 'a patch lists its new files' grep -qx 'New-file: mm/new.c' "$repo/patches/mm-hugetlb-add-a-file-and-a-hook.patch"
ok 'a patch has no new file in it' [ -z "$(grep -rl 'new file mode' "$repo/patches")" ]
keep export

first=$(head_)
ok 'exporting again' export_
ok 'exporting again changes nothing' clean
t update-ref refs/gmem/composed refs/gmem/base
t reset -q --hard refs/gmem/base
ok 'composing from nothing' compose
ok 'composing gives the same ids' [ "$(head_)" = "$first" ]
ok 'composing leaves a clean tree' [ -z "$(t status --porcelain)" ]

git clone -q "$repo" "$tmp/clone"
mkdir "$tmp/clone/build"
git clone -q "$tree" "$tmp/clone/build/tree"
git -C "$tmp/clone/build/tree" fetch -q "$tree" refs/gmem/base:refs/gmem/base refs/gmem/base:refs/gmem/composed
git -C "$tmp/clone/build/tree" reset -q --hard refs/gmem/base
ok 'composing in another clone' "$tmp/clone/lab/tree.sh"
ok 'another clone has the same ids' [ "$(git -C "$tmp/clone/build/tree" rev-parse gmem)" = "$first" ]

# An edit in the repository touches one file of the tree.
touch "$tmp/stamp"
sleep 0.01
echo more >>"$repo/mm/new.c"
ok 'an edited new file composes' compose
ok 'the edit arrives' cmp "$repo/mm/new.c" "$tree/mm/new.c"
ok 'only that file is touched' [ "$(cd "$tree" && find . -path ./.git -prune -o -type f -newer "$tmp/stamp" -print)" = ./mm/new.c ]
git -C "$repo" checkout -q mm/new.c
compose 2>/dev/null

# A rebase: the second patch goes first, and its subject changes.
GIT_SEQUENCE_EDITOR='sed -i -e "1{h;d};2{G}"' t rebase -q -i refs/gmem/base 2>/dev/null
t -c core.editor=true commit -q --amend -m 'A subject of another kind' 2>/dev/null
sed -i '1i# The head of the file.\n' "$repo/patches/series"
fails 'composing refuses to lose commits' 'not exported' compose
ok 'a rebased series exports' export_
ok 'an amended commit keeps its name' [ -f "$repo/patches/kvm-guest-memfd-hooks-only-under-a-subject-that-is-so-long.patch" ]
ok 'the order follows' [ "$(sed -n 3p "$repo/patches/series")" = tools-only-new-files.patch ]
ok 'comments stay' [ "$(head -n 1 "$repo/patches/series")" = '# The head of the file.' ]

# A patch goes, with its file.
GIT_SEQUENCE_EDITOR='sed -i -e 1d' t rebase -q -i refs/gmem/base 2>/dev/null
ok 'a shorter series exports' export_
ok 'the patch is gone' [ ! -e "$repo/patches/tools-only-new-files.patch" ]
ok 'its file is gone' [ ! -e "$repo/tools" ]
keep shorter

# Topic groups.
for i in 1 2 3; do
	echo "$i" >>"$tree/mm/b.c"
	t commit -q -am "mm: Line $i"
done
export_ 2>/dev/null
sed -i '1i# group one' "$repo/patches/series"
sed -i '/^mm-line-2/i# group two' "$repo/patches/series"
fails 'a group without a cover letter is an error' 'wanted: patches/one.cover' "$repo/lab/series.sh"
printf 'The first\n\nWhy one.\n' >"$repo/patches/one.cover"
printf 'The second\n\nWhy two.\n' >"$repo/patches/two.cover"
ok 'groups become mails' "$repo/lab/series.sh"
ok 'each group is counted by itself' grep -rqF 'Subject: [PATCH 2/2] mm: Line 3' "$repo/build/series/2-two"
ok 'each group has its cover letter' grep -qxF 'Subject: [PATCH 0/2] The second' "$repo/build/series/2-two/cover-letter.mail"
ok 'a cover letter has its text' grep -qxF 'Why one.' "$repo/build/series/1-one/cover-letter.mail"
ok 'exporting leaves the groups alone' export_
ok 'a group begins where it began' [ "$(grep -n -A 1 '^# group two' "$repo/patches/series" | tail -n 1 | cut -d - -f 2-)" = mm-line-2.patch ]
git clone -q "$tree" "$tmp/am"
git -C "$tmp/am" checkout -q --detach "$(t rev-parse refs/gmem/base)"
ok 'git am takes the groups one after the other' git -C "$tmp/am" am -q "$repo"/build/series/*/*.patch
ok 'git am gives the same tree' [ "$(git -C "$tmp/am" rev-parse 'HEAD^{tree}')" = "$(t rev-parse 'gmem^{tree}')" ]
keep groups

# Refusals.
echo dirt >>"$tree/mm/b.c"
fails 'export refuses a dirty tree' 'not committed' export_
fails 'composing refuses a dirty tree' 'not committed' compose
t checkout -q mm/b.c
echo later >>"$tree/mm/new.c"
t commit -q -am 'mm: Change a file of another commit'
fails 'a later change of a new file is refused' 'comes whole' export_
t reset -q --hard refs/gmem/composed

sed -i 's/^ 29$/ nine/' "$repo/patches/mm-hugetlb-add-a-file-and-a-hook.patch"
fails 'a conflict names the patch' 'patches/mm-hugetlb-add-a-file-and-a-hook.patch: does not apply to mm/a.c' compose
ok 'a conflict names the hunk' grep -q '@@ -27,7 +27,7 @@' "$tmp/fails.log"
git -C "$repo" checkout -q patches
sed -i 's/^@@ -27,7 +27,7 @@/@@ -25,7 +25,7 @@/' "$repo/patches/mm-hugetlb-add-a-file-and-a-hook.patch"
fails 'an offset is an error' 'only with an offset' compose
git -C "$repo" checkout -q patches
rm "$repo/mm/new.c"
fails 'a missing new file is an error' 'lists mm/new.c' compose
git -C "$repo" checkout -q mm
ok 'all is well again' compose
exit $status
