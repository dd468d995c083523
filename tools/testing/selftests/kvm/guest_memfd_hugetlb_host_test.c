// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test the host's access to shared memory of a guest_memfd on HugeTLB pages, without
 * conversion: the host maps single pages, all of them those of one huge page, which
 * is back in the pool at once when the file is done with it.
 */
#include <linux/falloc.h>
#include <linux/sizes.h>
#include <signal.h>
#include <sys/wait.h>

#include "hugetlb_ledger.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define ALLOCATE	FALLOC_FL_KEEP_SIZE
#define PUNCH		(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)
#define SHARED_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

/* Zeroing gigabytes on an emulated host with a debug kernel takes its time. */
#define TIMEOUT_SECONDS	180
#define TEST_HOST(name)	TEST_F_TIMEOUT(gmem_host, name, TIMEOUT_SECONDS)

FIXTURE(gmem_host)
{
	struct hugetlb_ledger ledger;
	struct kvm_vm *vm;
	char *mem;
	int fd;
};

FIXTURE_VARIANT(gmem_host)
{
	u64 flag;
	size_t page_size;
	/* Between the pages that a test touches: in 1G, one in each 2M. */
	size_t step;
};

FIXTURE_VARIANT_ADD(gmem_host, 2M)
{
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.page_size = SZ_2M,
	.step = SZ_4K,
};

FIXTURE_VARIANT_ADD(gmem_host, 1G)
{
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.page_size = SZ_1G,
	.step = SZ_2M + SZ_4K,
};

#define PAGE	(variant->page_size)

#define EXPECT_LEDGER(held, allocated)	\
	EXPECT_BALANCE(&self->ledger, held, allocated)

/* The file has one page, the mapping goes beyond it. */
FIXTURE_SETUP(gmem_host)
{
	u64 flags = variant->flag | SHARED_FLAGS;

	self->vm = vm_create_barebones();
	if ((vm_check_cap(self->vm, KVM_CAP_GUEST_MEMFD_FLAGS) & flags) != flags)
		SKIP(return, "KVM can't back shared memory with pages of this size");
	if (hugetlb_pool_grow(PAGE, 1) < 1)
		SKIP(return, "The pool hasn't got a page of %zu bytes", PAGE);

	hugetlb_ledger_open(&self->ledger, PAGE);
	self->fd = vm_create_guest_memfd(self->vm, PAGE, flags);
	self->mem = kvm_mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd);
	EXPECT_LEDGER(1, 0);
}

/* In the parent: it restores the pool even if the test was killed. */
FIXTURE_TEARDOWN_PARENT(gmem_host)
{
	EXPECT_LEDGER(0, 0);
	hugetlb_ledger_close(&self->ledger);
}

static char value(size_t off)
{
	return off / SZ_4K % 127 + 1;
}

#define EXPECT_FILLED(_mem)							\
do {										\
	size_t off;								\
										\
	for (off = 0; off < PAGE; off += variant->step) {			\
		ASSERT_EQ(value(off), READ_ONCE((_mem)[off]));			\
		ASSERT_EQ(0, READ_ONCE((_mem)[off + 1]));			\
		ASSERT_EQ(0, READ_ONCE((_mem)[off + SZ_4K - 1]));		\
	}									\
} while (0)

#define EXPECT_ZERO(_mem)							\
do {										\
	size_t off;								\
										\
	for (off = 0; off < PAGE; off += variant->step)				\
		ASSERT_EQ(0, READ_ONCE((_mem)[off]));				\
} while (0)

#define fill(_mem)								\
do {										\
	size_t off;								\
										\
	for (off = 0; off < PAGE; off += variant->step)				\
		WRITE_ONCE((_mem)[off], value(off));				\
} while (0)

TEST_HOST(first_touch)
{
	EXPECT_EQ(0, READ_ONCE(self->mem[PAGE - 1]));
	EXPECT_LEDGER(1, 1);
	EXPECT_ZERO(self->mem);
	fill(self->mem);
	EXPECT_FILLED(self->mem);
	TEST_EXPECT_SIGBUS((void)READ_ONCE(self->mem[PAGE]));
	EXPECT_LEDGER(1, 1);
}

/* What is unmapped is mapped again as it was. */
TEST_HOST(mappings_come_and_go)
{
	char *other;

	fill(self->mem);
	other = kvm_mmap(PAGE, PROT_READ, MAP_SHARED, self->fd);
	EXPECT_FILLED(other);
	kvm_munmap(self->mem, 2 * PAGE);
	EXPECT_FILLED(other);
	kvm_munmap(other, PAGE);
	other = kvm_mmap(PAGE, PROT_READ, MAP_SHARED, self->fd);
	EXPECT_FILLED(other);
	EXPECT_LEDGER(1, 1);
}

/* Each single page of a huge one that was whole before. */
TEST_HOST(populate)
{
	size_t off;

	kvm_fallocate(self->fd, ALLOCATE, 0, PAGE);
	ASSERT_EQ(0, madvise(self->mem, PAGE, MADV_POPULATE_WRITE));
	for (off = 0; off < PAGE; off += SZ_4K)
		ASSERT_EQ(0, READ_ONCE(self->mem[off]));
	EXPECT_LEDGER(1, 1);
}

TEST_HOST(punch)
{
	fill(self->mem);
	kvm_fallocate(self->fd, PUNCH, 0, PAGE);
	EXPECT_LEDGER(1, 0);
	EXPECT_ZERO(self->mem);
	EXPECT_LEDGER(1, 1);
}

/* In the kernel, on behalf of a system call. */
static pid_t fork_reader(char *mem, size_t len)
{
	pid_t pid = fork();

	TEST_ASSERT(pid >= 0, "fork() failed: %s", strerror(errno));
	if (pid)
		return pid;

	_exit(read(open("/dev/zero", O_RDONLY), mem, len) != len);
}

static bool ends_in_time(pid_t pid)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!waitpid(pid, NULL, WNOHANG)) {
		if (timespec_elapsed(start).tv_sec >= TIMEOUT_SECONDS / 6)
			return false;
		usleep(1000);
	}
	return true;
}

/* Sooner or later in the first touch, which zeroes all of the page. */
TEST_HOST(killed_in_a_fault)
{
	useconds_t delay;
	pid_t pid;

	for (delay = 1000; delay < 500 * 1000; delay *= 2) {
		pid = fork_reader(self->mem, PAGE);
		usleep(delay);
		kill(pid, SIGKILL);
		ASSERT_TRUE(ends_in_time(pid));
		kvm_fallocate(self->fd, PUNCH, 0, PAGE);
	}
}

/* The last of descriptor, mapping and VM gives everything back. */
TEST_HOST(last_user)
{
	fill(self->mem);
	kvm_vm_free(self->vm);
	kvm_close(self->fd);
	EXPECT_LEDGER(1, 1);
	EXPECT_FILLED(self->mem);
	kvm_munmap(self->mem, 2 * PAGE);
	EXPECT_LEDGER(0, 0);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}
