#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make check adds up, and runs again what has to be run again; with made-up sections.
. "$(dirname "$0")/common.sh"

repo=$tmp/repo
mkdir -p "$repo/lab/t" "$repo/build"
for dir in kernel kernel-debug; do
	mkdir -p "$repo/build/$dir/arch/x86/boot"
	echo "$dir" >"$repo/build/$dir/arch/x86/boot/bzImage"
done
mkdir -p "$repo/build/selftests/install"
echo base >"$repo/build/source.id"
cp "$HERE/base.mk" "$repo/"
cp "$HERE"/lab/{check,lib,vm}.sh "$HERE"/lab/{init,judge.py,splats,tests} "$repo/lab/"
echo /build/ >"$repo/.gitignore"
for script in source tree kernel selftests image lint ktest watchers baseline t/one; do
	printf '#!/bin/sh\necho "%s $*" >>"%s"\n' "$script" "$tmp/calls" >"$repo/lab/$script.sh"
	chmod +x "$repo/lab/$script.sh"
done
for script in lint ktest watchers baseline t/one; do
	printf 'echo "ok - %s $*"\n' "$script" >>"$repo/lab/$script.sh"
done
echo 'echo "ok - another # SKIP why"' >>"$repo/lab/lint.sh"
git -C "$repo" init -q

check() { : >"$tmp/calls"; "$repo/lab/check.sh" >"$tmp/check.log" 2>&1; }
fails_() { ! check; }
last_is() { [ "$(tail -n 1 "$tmp/check.log")" = "$1" ]; }
called() { [ "$(grep -c "^$1 " "$tmp/calls")" = "$2" ]; }

ok 'all passes' check
ok 'the last line is the sum' last_is '6 passed, 0 failed, 1 skipped'
ok 'each kernel is tested' called ktest 2
ok 'a second time' check
ok 'has the same sum' last_is '6 passed, 0 failed, 1 skipped'
ok 'and tests nothing' called ktest 0
ok 'AGAIN=1' env AGAIN=1 bash -c "$(declare -f check); tmp=$tmp repo=$repo; check"
ok 'tests all' called ktest 2

echo other >"$repo/build/kernel-debug/arch/x86/boot/bzImage"
ok 'another debug kernel' check
ok 'is tested, and the normal one is not' called ktest 1
ok 'nothing else is' called lint 0
echo text >"$repo/README"
ok 'another file in the repository' check
ok 'is looked at' called lint 1
ok 'and is nothing to the VM' called ktest 0

git -C "$repo" add README
rm "$repo/README"
ok 'a file that is gone' check
ok 'is missed' called lint 1

echo 'echo "not ok - lint"' >>"$repo/lab/lint.sh"
ok 'a failure fails' fails_
ok 'and is in the sum' last_is '6 passed, 1 failed, 1 skipped'
ok 'and fails the next time' fails_
ok 'as it is run again' called lint 1

# What fails now and then has not passed.
printf '#!/bin/sh\ncat "%s"\n' "$tmp/luck" >"$repo/lab/lint.sh"
echo 'ok - lint' >"$tmp/luck"
ok 'with luck it passes' check
echo 'not ok - lint' >"$tmp/luck"
ok 'without, AGAIN=1 fails' env AGAIN=1 bash -c "$(declare -f check); tmp=$tmp repo=$repo; ! check"
ok 'and what passed before is forgotten' fails_
printf '#!/bin/sh\nexit 3\n' >"$repo/lab/lint.sh"
ok 'a section that dies fails' fails_
ok 'and counts as one' last_is '5 passed, 1 failed, 0 skipped'

printf '#!/bin/sh\necho ok\n' >"$repo/lab/lint.sh"
# shellcheck disable=SC2016	# for the script
printf '#!/bin/sh\n[ "$1" = normal ]\n' >"$repo/lab/kernel.sh"
ok 'a kernel that does not build fails' fails_
ok 'is in the sum' last_is '4 passed, 1 failed, 0 skipped'
ok 'and is not tested' called watchers 0
exit $status
