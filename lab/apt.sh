#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Download Debian packages of another suite, and print the names of the files.
#
#	lab/apt.sh SUITE DIRECTORY PACKAGE[=VERSION]...
#
# apt does the work, signature and checksums included, with a source list and a
# state directory of its own under build/: the system's apt sees none of it.
# The mirror is the one that the system's own sources name.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

suite=$1 dir=$2
shift 2

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
state=$BUILD/apt/$suite

# The mirror of this release's main archive (both forms of source lists).
mirror()
{
	local codename

	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' \
		'Created-By: Packages' |
		awk -v c="$codename" '$1 == c && $2 == "main" { sub("/$", "", $3); print $3; exit }'
}

private_apt()
{
	local tool=$1

	shift
	"$tool" -q -o Dir::State="$state" -o Dir::State::lists="$state/lists" \
		-o Dir::State::status=/dev/null \
		-o Dir::Cache="$state/cache" -o Dir::Etc::sourcelist="$state/sources.list" \
		-o Dir::Etc::sourceparts=- \
		-o APT::Sandbox::User= -o Acquire::Languages=none "$@"
}

[ -r $KEYRING ] || die "Debian's archive keys are missing: $KEYRING" "install debian-archive-keyring (make deps)"
uri=$(mirror)
[ -n "$uri" ] || die "no Debian main archive found in this machine's apt sources" \
	"wanted: an entry for this release's own suite; or use KERNEL_SRC=PATH"

mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$dir"
echo "deb [signed-by=$KEYRING] $uri $suite main" >"$state/sources.list"

if ! find "$state/updated" -mmin -60 2>/dev/null | grep -q .; then
	private_apt apt-get -o APT::Update::Error-Mode=any update >"$state/log" 2>&1 ||
		{ cat "$state/log" >&2; die "apt could not read the suite $suite from this machine's mirror" \
			"wanted: a mirror that is up to date; if one has to do that isn't, see Check-Valid-Until in apt.conf(5)"; }
	touch "$state/updated"
fi

for package; do
	# apt keeps a file that is already there and whose checksum is right.
	(cd "$dir" && private_apt apt-get download "$package") >"$state/log" 2>&1 ||
		{ cat "$state/log" >&2; die "apt could not download $package from $suite"; }
	private_apt apt-get --print-uris download "$package" | awk -v d="$dir" '{ print d "/" $2 }'
done
