#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Build the kernel's own tests that lab/tests names, static, out of tree.
#
# KVM's are installed by their own Makefile.  Of other collections only the named
# programs are built: their Makefiles want libraries for the rest.  The result is
# build/selftests/install, a kselftest directory with the named tests, stripped.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

out=$BUILD/selftests
all=$out/kselftest_install
install=$out/install
src=$TREE/tools/testing/selftests
mkdir -p "$out"

# lib.mk and the collections append to LDFLAGS from the environment; given on
# make's command line it would replace what they append.
export LDFLAGS=-static
export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1
cc=gcc
! command -v ccache >/dev/null || cc='ccache gcc'
make_tests=(make -j"$(nproc)" O="$out" CC="$cc" FORCE_TARGETS=1)

build()
{
	local test

	logged "$out/headers.log" make -C "$TREE" O="$out" -j"$(nproc)" headers
	logged "$out/kvm.log" "${make_tests[@]}" -C "$src" TARGETS=kvm INSTALL_PATH="$all" install
	for test in $(tests_of any | grep -v '^kvm:' || :); do
		build_other "${test%%:*}" "${test#*:}"
	done
}

build_other()
{
	local dir=$out/kselftest/$1

	mkdir -p "$dir" "$all/$1"
	[ ! -x "$src/$1/$2" ] || cp "$src/$1/$2" "$dir/"
	logged "$out/$1.log" "${make_tests[@]}" -C "$src/$1" OUTPUT="$dir" \
		KHDR_INCLUDES="-isystem $out/usr/include" "$dir/$2"
	cp -u "$dir/$2" "$all/$1/"
	grep -qx "$1:$2" "$all/kselftest-list.txt" || echo "$1:$2" >>"$all/kselftest-list.txt"
}

install_named()
{
	local test file

	rm -rf "$install"
	mkdir -p "$install"
	cp -r "$all/kselftest" "$all/run_kselftest.sh" "$install/"
	for test in $(tests_of any); do
		file=$all/${test%%:*}/${test#*:}
		[ -f "$file" ] || die "lab/tests names $test, which was not built" \
			"wanted: a program that the Makefile of that collection builds"
		mkdir -p "$install/${test%%:*}"
		cp -u "$src/${test%%:*}/settings" "$install/${test%%:*}/"
		strip -o "$install/${test%%:*}/${test#*:}" "$file" 2>/dev/null ||
			cp "$file" "$install/${test%%:*}/"
		echo "$test" >>"$install/kselftest-list.txt"
	done
}

step "building the selftests" build
install_named
