#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Is what watches the debug kernel awake?  It is told to use freed memory (TAP).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

dir=$(mktemp -d "$BUILD/run.XXXXXX")
trap 'rm -rf "$dir"' EXIT

"$LAB/vm.sh" -k "$(kernel_dir debug)" -t 300 -o "$dir" \
	'echo READ_AFTER_FREE >/sys/kernel/debug/provoke-crash/DIRECT; exit 0' >/dev/null
"$LAB/judge.py" "$dir" >"$dir/verdict" || :
if grep -qE '^not ok - .*kernel splat: .*BUG: KASAN: ' "$dir/verdict"; then
	echo 'ok - KASAN notices a read of freed memory, and the judge does'
else
	echo 'not ok - KASAN notices a read of freed memory, and the judge does'
	sed 's/^/#   /' "$dir/verdict"
	exit 1
fi
