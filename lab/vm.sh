#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The one place that knows QEMU: boot a VM, run a command in it.
#
#	lab/vm.sh [-k KERNEL-OUT] [-i IMAGE] [-t SECONDS] [-q SECONDS] [-o DIR] [-f FILE] COMMAND
#	lab/vm.sh [-k KERNEL-OUT] --shell
#	lab/vm.sh --accel
#
# COMMAND's output goes to standard output as it comes.  FILE is put into the VM's
# /lab.  DIR gets console.log, out.log, status (what lab/init says) and ended
# (poweroff, reset, timeout or flood); lab/judge.py reads them.  It is a timeout, too,
# when nothing is printed for as long as -q says.  --accel prints the accelerator, no
# more.  KERNEL_ARGS and CPU_FLAGS, from the environment, are added to what stands here.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

kernel=$BUILD/kernel
image=$BUILD/initramfs.cpio
seconds=600
quiet=
dir=$BUILD/run
file=
shell=
MAX_LOG=${MAX_LOG:-$((8 << 20))}

# KVM only where a guest can have guests: /dev/kvm alone may be a host that
# cannot nest.
accelerator()
{
	local sys=${SYSFS:-/sys} dev=${DEV_KVM:-/dev/kvm} nested

	for nested in "$sys"/module/kvm_{amd,intel}/parameters/nested; do
		if [ -r "$nested" ] && grep -qx '[1Yy]' "$nested" && [ -r "$dev" ] && [ -w "$dev" ]; then
			echo kvm
			return
		fi
	done
	echo tcg
}

# Without la57: while the kernel identifies its CPU it has no features for a moment, and
# KASAN takes each address that an interrupt uses then for a wild one.
#
# Three CPUs, and nothing of ours on the first (lab/init): whichever CPU loads FPU
# registers, TCG writes the first one's hflags2 without a lock (cpu_clear_ignne(), in
# 7.2 to 10.0).  If that one enters or leaves a guest just then, HF2_NPT_MASK gets lost
# or comes back: the guest runs on the VM's own memory, or leaves when it is not there.
#
# Little memory below 4G, so that each node has room for two 1G pages beside
# what the kernel itself takes at boot.
machine()
{
	case $(accelerator) in
	kvm)	echo -accel kvm -cpu "host${CPU_FLAGS:+,$CPU_FLAGS}" ;;
	tcg)	echo -accel tcg -cpu "max,erms=off,fsrm=off,la57=off${CPU_FLAGS:+,$CPU_FLAGS}" ;;
	esac
	echo -machine q35,max-ram-below-4g=1G -smp 3,sockets=3 -m 8G
	echo -object memory-backend-ram,id=m0,size=4G -numa node,nodeid=0,cpus=0-1,memdev=m0
	echo -object memory-backend-ram,id=m1,size=4G -numa node,nodeid=1,cpus=2,memdev=m1
	echo -nodefaults -display none -no-reboot
}

cmdline="console=ttyS0 panic=-1 oops=panic hugepagesz=1G hugepages=0:2,1:2
	hugepagesz=2M hugepages=0:64,1:64 hugetlb_free_vmemmap=on kvm.force_emulation_prefix=1
	unknown_nmi_panic panic_sys_info=blocked_tasks,all_bt
	${KERNEL_ARGS:-}"

while [ $# -gt 0 ]; do
	case $1 in
	-k) kernel=$2; shift 2 ;;
	-i) image=$2; shift 2 ;;
	-t) seconds=$2; shift 2 ;;
	-q) quiet=$2; shift 2 ;;
	-o) dir=$2; shift 2 ;;
	-f) file=$2; shift 2 ;;
	--shell) shell=1; shift ;;
	--accel) accelerator; exit ;;
	--) shift; break ;;
	-*) die "unknown option: $1" ;;
	*) break ;;
	esac
done

[ -f "$kernel/arch/x86/boot/bzImage" ] || die "no kernel in $kernel" "make kernel builds it"
[ -f "$image" ] || die "no $image" "make image builds it"

read -ra qemu <<<"qemu-system-x86_64 $(machine | tr '\n' ' ')"
qemu+=(-kernel "$kernel/arch/x86/boot/bzImage" -append "${cmdline//[$'\n\t']/ }")

if [ -n "$shell" ]; then
	say "Ctrl-A X ends the VM."
	exec "${qemu[@]}" -initrd "$image" -serial mon:stdio
fi
[ $# -eq 1 ] || die "what shall run in the VM?" "make run CMD='...'"

rm -rf "$dir"
mkdir -p "$dir/lab"
printf '%s\n' "$1" >"$dir/lab/cmd"
[ -z "$file" ] || cp "$file" "$dir/lab/"
# The kernel unpacks one archive after the other.
{ cat "$image"; (cd "$dir" && find lab | cpio --quiet -o -H newc); } >"$dir/initrd"
touch "$dir/console.log" "$dir/out.log" "$dir/status"
mkfifo "$dir/monitor"
exec 3<>"$dir/monitor"

"${qemu[@]}" -initrd "$dir/initrd" -monitor stdio -serial "file:$dir/console.log" \
	-serial "file:$dir/out.log" -serial "file:$dir/status" <&3 >"$dir/qemu.log" 2>&1 &
pid=$!
tail -f -n +1 -s 0.2 --pid=$pid "$dir/out.log" 2>/dev/null &
tail=$!
trap 'kill $pid 2>/dev/null || :' EXIT

running() { kill -0 $pid 2>/dev/null; }
printed() { echo $(($(stat -c %s "$dir/console.log") + $(stat -c %s "$dir/out.log"))); }

# Where is each CPU of a VM that hangs?  QEMU says; then the kernel, which takes an NMI
# of no known reason for a reason to panic.
ask_where()
{
	echo 'info registers -a' >&3
	echo nmi >&3
	for _ in $(seq 50); do
		running || return 0
		sleep 0.2
	done
}

ended=
start=$SECONDS
heard=$start
size=0
while running; do
	last=$size
	size=$(printed)
	[ "$size" = "$last" ] || heard=$SECONDS
	if [ "$size" -gt "$MAX_LOG" ]; then
		ended=flood
	elif [ $((SECONDS - start)) -ge "$seconds" ] ||
	     [ $((SECONDS - heard)) -ge "${quiet:-$seconds}" ]; then
		ended=timeout
		ask_where
	else
		sleep 0.2
		continue
	fi
	kill $pid 2>/dev/null || :
	break
done
status=0
wait $pid || status=$?
wait $tail || :
rm -f "$dir/initrd" "$dir/monitor"

if [ -z "$ended" ]; then
	ended=reset
	! grep -aq 'reboot: Power down' "$dir/console.log" || ended=poweroff
	[ $status = 0 ] || { cat "$dir/qemu.log" >&2; ended="qemu status $status"; }
fi
echo "$ended" >"$dir/ended"
truncate -s "<$MAX_LOG" "$dir/console.log" "$dir/out.log"
