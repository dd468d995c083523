#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make run: boot the VM, run a command in it, return its status.
#
#	lab/run.sh [vm.sh's options] COMMAND
#
# A splat, a hang or a crash makes it fail whatever the command said.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

dir=$(mktemp -d "$BUILD/run.XXXXXX")
trap 'rm -rf "$dir"' EXIT

"$LAB/vm.sh" -o "$dir" "$@"
status=0
"$LAB/judge.py" "$dir" >"$dir/verdict" || status=$?
! grep '^not ok' -A 100 "$dir/verdict" >&2 || say "the console is in build/console.log"
cp "$dir/console.log" "$BUILD/console.log"
exit "$status"
