#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Install the Debian packages that are missing; not root: say how, and stop.
#
#	lab/deps.sh [PACKAGE...]
#
# The arguments are what one target wants besides.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

wanted='bc bison build-essential busybox-static ca-certificates ccache codespell
	coreutils cpio debian-archive-keyring dpkg-dev flex git kmod libelf-dev
	libssl-dev perl python3 python3-git python3-ply python3-sphinx python3-yaml qemu-system-x86 rsync
	shellcheck uuid-dev xz-utils'
wanted="$wanted $*"

command -v dpkg-query >/dev/null || die "this is not a Debian machine" "wanted, by their names there: $wanted"

missing=()
for package in $wanted; do
	# shellcheck disable=SC2016
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
		missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
[ "$(id -u)" = 0 ] || die "tools are missing; as root run:" "$install"

export DEBIAN_FRONTEND=noninteractive
install_missing()
{
	logged "$BUILD/deps.log" apt-get -q update
	# shellcheck disable=SC2086
	logged "$BUILD/deps.log" $install
}
step "installing ${missing[*]}" install_missing
