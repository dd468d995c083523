# SPDX-License-Identifier: GPL-2.0-only
# Shared by the scripts in lab/: where things are, and how to talk to the user.
# shellcheck shell=bash disable=SC2034

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
LAB=$ROOT/lab
BUILD=${GMEM_BUILD:-$ROOT/build}		# lab/bisect.sh has one of its own
TREE=$BUILD/tree
TESTS=${GMEM_TESTS:-$LAB/tests}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/gmem-1g

BASE_REF=refs/gmem/base			# the pristine kernel
COMPOSED_REF=refs/gmem/composed		# the series as last composed or exported

# shellcheck source=base.mk
. "$ROOT/base.mk"

export LC_ALL=C
# The front door's flags and variables are not for the kernel's Makefile.
unset MAKEFLAGS MFLAGS MAKELEVEL
# Debian's tools first: codespell and ply belong to Debian's python3.
export PATH=/usr/bin:/bin:$PATH
mkdir -p "$BUILD"

say() { printf '%s\n' "$*" >&2; }

# die WHAT-HAPPENED [EXPECTED-OR-WHAT-TO-DO...]: one line each.
die()
{
	printf 'error: %s\n' "$1" >&2
	shift
	[ $# -eq 0 ] || printf '       %s\n' "$@" >&2
	exit 1
}

# step WHAT COMMAND...: run a long command, say what it is and how long it took.
step()
{
	local what=$1 start=$SECONDS

	shift
	say "... $what"
	"$@" || return
	say "    $what: $((SECONDS - start)) s"
}

# git without the user's or the system's settings: the same result everywhere.
gitp() { GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git "$@"; }
tgit() { gitp -C "$TREE" "$@"; }

# Where a variant of the kernel is built.
kernel_dir() { if [ "$1" = normal ]; then echo "$BUILD/kernel"; else echo "$BUILD/kernel-$1"; fi; }

# The series' patch names, in order, without comments.
series_names() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$ROOT/patches/series" 2>/dev/null || :; }

# The topic groups: NAME FIRST LAST lines, by number of the patch.
series_groups()
{
	awk 'function end() { if (name) print name, first, n }
		/^# group / { end(); name = $3; first = n + 1 }
		/^[^#[:space:]]/ { n++ }
		END { end() }' "$ROOT/patches/series"
}

# new_files PATCH: the files that a patch brings.
new_files() { sed -n -e '/^diff --git /q' -e 's/^New-file: //p' "$1"; }

# Is the tree made from the pinned version of the base?
base_is_pinned() { grep -qsxF "deb $BASE_VERSION" "$BUILD/source.id"; }

# The tests of lab/tests for a kernel (normal, debug) and a mode (see there):
# NAME TIMEOUT ARGUMENTS lines.  "any": the names of all.
tests_of()
{
	awk -v k="$1" -v m="${2:-}" '{ sub("#.*", ""); args = "" } !NF { next }
		{ t = 120; on = "both"; mode = "per-vm" }
		sub(" *-- ", "\001") { args = $0; sub(".*\001", "", args); sub("\001.*", "") }
		{ for (i = 2; i <= NF; i++)
			if ($i ~ /^[0-9]+$/) t = $i
			else if ($i ~ /^(per-vm|in-place|each|cma|shadow|no-1g|mmu|stress)$/) mode = $i
			else on = $i }
		k == "any" { if (!seen[$1]++) print $1; next }
		(on == "both" || on == k) && (mode == m || mode == "each" && m ~ /^(per-vm|in-place)$/) { print $1, t, args }' "$TESTS"
}

# Everything that make says goes to $1; the first errors if it fails.
logged()
{
	local log=$1

	shift
	"$@" >"$log" 2>&1 && return
	grep -nE -m 20 'error|Error [0-9]|undefined reference|warning:' "$log" >&2 || tail -n 20 "$log" >&2
	die "this failed: $*" "the whole log is $log"
}
