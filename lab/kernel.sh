#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Build the kernel of the VM under test.
#
#	lab/kernel.sh VARIANT [SOURCE OUT]
#
# A variant is a set of fragments in lab/kconfig.  ccache, where installed, is
# told to forget where the repository lies, so that a second clone hits it too.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

variant=${1:-normal}
src=${2:-$TREE}
out=${3:-$(kernel_dir "$variant")}

fragments=("$LAB/kconfig/vm.config")
[ "$variant" = normal ] || fragments+=("$LAB/kconfig/$variant.config")
[ -f "${fragments[-1]}" ] || die "no such kernel: $variant" "wanted: normal, or a fragment's name in lab/kconfig"

export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_USER=gmem KBUILD_BUILD_HOST=lab
export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-10G}
cc=gcc
! command -v ccache >/dev/null || cc='ccache gcc'

# A line now and then while it builds.
progress()
{
	local start=$SECONDS

	while sleep 30; do
		say "    $((SECONDS - start)) s, $(grep -cE '^  [A-Z]+ ' "$1" || :) objects"
	done
}

targets=(bzImage)
! grep -qs '=m$' "${fragments[@]}" || targets+=(modules)

build()
{
	local log=$out/build.log watcher

	: >"$log"
	progress "$log" &
	watcher=$!
	# shellcheck disable=SC2064
	trap "kill $watcher" EXIT
	logged "$log" make -C "$src" O="$out" CC="$cc" ${V:+V="$V"} -j"$(nproc)" "${targets[@]}"
}

"$LAB/kconfig.sh" "$src" "$out" "${fragments[@]}"
step "building the $variant kernel" build
