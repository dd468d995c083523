# SPDX-License-Identifier: GPL-2.0-only
# The front door: each target calls one script in lab/.
#
# KERNEL_SRC=PATH  another 7.3 source than Debian's (directory, git tree, tarball)
# CMD='...'        what `make run` runs
# KERNEL_ARGS='..' more for the kernel command line of `make run` and `make shell`
# CONFIG=PATH      the configuration that `make deb` starts from
# AGAIN=1          check runs everything, not only what has changed since it passed
# DEBUG=1          kernel, run and shell use the debug kernel
# V=1              verbose kernel build

export KERNEL_SRC V
variant := $(if $(DEBUG),debug,normal)
out := build/kernel$(if $(DEBUG),-debug)

help: ## show this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 14

deps: ## install the tools that are missing (as root), or say how
	@lab/deps.sh

source: ## get the base, Linux 7.3 (KERNEL_SRC=PATH: another 7.3 source)
	@lab/source.sh

tree: source ## compose the series into build/tree, one commit per patch
	@lab/tree.sh

edit: source ## the same, and say how to change the series
	@lab/tree.sh --edit

export: ## write the commits of build/tree back into patches/ and the new files
	@lab/export.sh

series: tree ## write mails for git am, group by group, and a git bundle to build/series
	@lab/series.sh

current: source
	@lab/tree.sh --keep

kernel: current ## build the VM's kernel (DEBUG=1: with every check on)
	@lab/kernel.sh $(variant)

selftests: current ## build the kernel's own tests that lab/tests names
	@lab/selftests.sh

image: selftests ## make the VM's initramfs
	@lab/image.sh

run: kernel image ## run CMD='...' in the VM, return its exit status
	@lab/run.sh -k $(out) "$$CMD"

shell: kernel image ## an interactive shell in the VM
	@lab/vm.sh -k $(out) --shell

demo: deps ## run a guest on a 1G guest_memfd page, and print a report
	@lab/demo.sh

check: deps ## run every test, on the normal and on the debug kernel
	@lab/check.sh

lint: tree ## check the series and the scripts without booting anything
	@lab/lint.sh

deb: tree ## Debian packages of the kernel (CONFIG=PATH: its configuration)
	@lab/deps.sh debhelper libdw-dev
	@CONFIG='$(CONFIG)' lab/deb.sh

baseline: tree selftests image ## run the base's own MMU tests on the unpatched base
	@lab/baseline.sh

bisect: tree ## build and boot each commit in each configuration; test each group
	@lab/bisect.sh

clean: ## remove build/ (unexported work in build/tree included)
	rm -rf build

# As it stands: make shall not expand the dollars in it.
override CMD := $(value CMD)
export CMD
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help deps source tree edit export series current kernel selftests image run \
	shell demo check lint deb baseline bisect clean
