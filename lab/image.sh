#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Make the VM's initramfs: busybox, the tests, and lab/init.
#
#	lab/image.sh [KERNEL-OUT [IMAGE]]
#
# What to run is not in it: lab/vm.sh appends that.  A kernel directory with
# modules adds these.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

kernel=${1:-}
image=$(realpath -m "${2:-$BUILD/initramfs.cpio}")
root=$image.d

busybox=$(command -v busybox) || die "busybox is missing" "make deps installs it"
! ldd "$busybox" >/dev/null 2>&1 || die "$busybox is not static" "wanted: Debian's busybox-static"

# busybox's timeout has no --foreground, which the kselftest runner wants.
copy_timeout()
{
	local lib

	mkdir -p "$root/usr/bin"
	cp "$(command -v timeout)" "$root/usr/bin/timeout"
	while read -r lib; do
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
	done < <(ldd "$(command -v timeout)" | grep -oE '/[^ ]+')
}

rm -rf "$root"
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/lab"
cp "$busybox" "$root/bin/busybox"
copy_timeout
cp -r "$BUILD/selftests/install" "$root/kselftest"
install -m 755 "$LAB/init" "$root/init"
if [ -n "$kernel" ] && [ -f "$kernel/modules.order" ] && [ -s "$kernel/modules.order" ]; then
	logged "$kernel/modules.log" make -C "$kernel" INSTALL_MOD_PATH="$root" modules_install
fi
(cd "$root" && find . -print0 | sort -z | cpio --quiet -0 -o -H newc --owner=0:0) >"$image.new"
mv "$image.new" "$image"
rm -rf "$root"
