// SPDX-License-Identifier: GPL-2.0-only
/*
 * The examples of README.md and of Documentation/virt/kvm/guest_memfd.rst at work, each
 * in a file of its own that lab/t/docs.sh has taken from there.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define SIZE	(1UL << 30)
#define OFFSET	(5UL * 4096)

/* What is in it keeps a page in use. */
static int in_use[2];
static int nr_released;

static void release_my_references(int gmem_fd, __u64 offset)
{
	char c;

	if (offset != OFFSET)
		errx(1, "Page 0x%llx of %d is in use", (unsigned long long)offset, gmem_fd);
	if (!nr_released++ && read(in_use[0], &c, 1) != 1)
		err(1, "read()");
}

#include "create.inc"
#include "convert.inc"

/* A system call that is given private memory fails; it can use shared memory. */
static void expect_write(char *p, int error)
{
	int pipefd[2], err;

	if (pipe(pipefd))
		errx(1, "No pipe");
	err = write(pipefd[1], p, 1) == 1 ? 0 : errno;
	if (err != error)
		errx(1, "Expected errno %d for %p, got %d", error, p, err);
	close(pipefd[0]);
	close(pipefd[1]);
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR), vm, fd, r;
	char *mem;

	vm = ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	if (vm < 0)
		err(1, "KVM_CREATE_VM");
	fd = create(vm, SIZE);
	if (fd < 0)
		err(1, "create()");
	mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		err(1, "mmap()");

	expect_write(mem + OFFSET, EFAULT);
	r = convert(fd, OFFSET, 4096, 0);
	if (r)
		errx(1, "convert() to shared: %d", r);
	mem[OFFSET] = 'a';
	expect_write(mem + OFFSET, 0);
	if (pipe(in_use) || vmsplice(in_use[1], &(struct iovec) { mem + OFFSET, 1 }, 1, 0) != 1)
		err(1, "vmsplice()");
	r = convert(fd, OFFSET, 4096, KVM_MEMORY_ATTRIBUTE_PRIVATE);
	if (r || !nr_released)
		errx(1, "convert() to private: %d, the page was released %d times", r, nr_released);
	expect_write(mem + OFFSET, EFAULT);
	r = convert(fd, 0, SIZE, 0);
	if (r || mem[OFFSET] != 'a')
		errx(1, "convert() of all to shared: %d, found %d", r, mem[OFFSET]);

	dprintf(STDOUT_FILENO, "1G page: %s\n",
		ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS) &
		GUEST_MEMFD_FLAG_HUGETLB_1G ? "yes" : "no");
	return 0;
}
