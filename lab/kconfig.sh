#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Configure a kernel from fragments, and insist that every option survived.
#
#	lab/kconfig.sh SOURCE OUT FRAGMENT...
#
# The fragments are merged over allnoconfig.  OUT/.config is left alone when it
# would not change, so that a build stays incremental.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

mkdir -p "$2"
src=$(realpath "$1") out=$(realpath "$2")
shift 2
mapfile -t fragments < <(realpath "$@")
merged=$out/.config.merged

up_to_date()
{
	local f

	[ -f "$out/.config" ] && [ "$(cat "$out/.config.fragments" 2>/dev/null)" = "${fragments[*]}" ] || return 1
	for f in "${fragments[@]}"; do
		[ "$merged" -nt "$f" ] || return 1
	done
	[ -z "$(find "$src" -name 'Kconfig*' -newer "$merged" -print -quit)" ]
}

# The last word on each option: NAME VALUE, "n" for what shall be off.
requested()
{
	cat "${fragments[@]}" | sed -nE 's/^CONFIG_([A-Z0-9_a-z]+)=(.*)$/\1 \2/p' |
		awk '{ n = $1; sub("^[^ ]* ", ""); v[n] = $0 } END { for (n in v) print n, v[n] }' | sort
}

got() { sed -n "s/^CONFIG_$1=//p" "$out/.config.new" | grep . || echo n; }

defined() { grep -rqsE --include='Kconfig*' "^[[:space:]]*(menu)?config $1\$" "$src"; }

verify()
{
	local name value bad=0

	while read -r name value; do
		[ "$(got "$name")" != "$value" ] || continue
		if defined "$name"; then
			say "CONFIG_$name: wanted $value, got $(got "$name")"
			bad=1
		else
			say "note: this tree has no CONFIG_$name (yet); left out"
		fi
	done < <(requested)
	[ $bad = 0 ] || die "options did not survive the merge" \
		"look at their dependencies; fragments: ${fragments[*]#"$ROOT/"}"
}

! up_to_date || exit 0

mkdir -p "$out/kconfig"
(cd "$src" && logged "$out/kconfig.log" scripts/kconfig/merge_config.sh -n -O "$out/kconfig" "${fragments[@]}")
cp "$out/kconfig/.config" "$out/.config.new"
verify
cmp -s "$out/.config.new" "$merged" && [ -f "$out/.config" ] || cp "$out/.config.new" "$out/.config"
mv "$out/.config.new" "$merged"
echo "${fragments[*]}" >"$out/.config.fragments"
