#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make deb: Debian packages of the kernel with the series, by the kernel's own bindeb-pkg.
#
# CONFIG is the configuration to start from, by default the running kernel's.  What
# the series wants is switched on in it, everything new besides gets its default.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

config=${CONFIG:-/boot/config-$(uname -r)}
unset CONFIG
[ -r "$config" ] || die "no kernel configuration: $config" "make deb CONFIG=PATH, e.g. one from /boot"
options=(KVM_GUEST_MEMFD_HUGETLB)
packages=$BUILD/deb
out=$packages/build

export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_USER=gmem KBUILD_BUILD_HOST=lab
export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1
cc=gcc
! command -v ccache >/dev/null || cc='ccache gcc'
make_kernel=(make -C "$TREE" O="$out" CC="$cc" -j"$(nproc)")

configure()
{
	local option

	cp "$config" "$out/.config"
	for option in "${options[@]}"; do
		"$TREE/scripts/config" --file "$out/.config" --enable "$option"
	done
	logged "$out/config.log" "${make_kernel[@]}" olddefconfig
	for option in "${options[@]}"; do
		grep -qx "CONFIG_$option=y" "$out/.config" ||
			die "$config can't have CONFIG_$option" \
				"wanted: what it depends on, see arch/x86/kvm/Kconfig in $TREE"
	done
}

rm -f "$packages"/*.deb
mkdir -p "$out"
configure
step "building the packages, log in $packages/build.log" logged "$packages/build.log" \
	"${make_kernel[@]}" bindeb-pkg </dev/null
ls "$packages"/*.deb
