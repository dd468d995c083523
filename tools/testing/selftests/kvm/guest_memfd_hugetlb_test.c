// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test the files that guest_memfd makes out of pages of the HugeTLB pool: what can be
 * created, and every counter of the pool through the life of a file.  The pool's
 * other users are in guest_memfd_hugetlb_pool_test, and guests in
 * guest_memfd_hugetlb_map_test.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "gmem_hugetlb.h"

TEST(capability_follows_the_host)
{
	const struct {
		u64 flag;
		size_t page_size;
	} sizes[] = {
		{ GUEST_MEMFD_FLAG_HUGETLB_2M, SZ_2M },
		{ GUEST_MEMFD_FLAG_HUGETLB_1G, SZ_1G },
	};
	struct kvm_vm *vm = vm_create_barebones();
	u64 flags = vm_check_cap(vm, KVM_CAP_GUEST_MEMFD_FLAGS);
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (!(flags & sizes[i].flag)) {
			EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(vm, SZ_1G,
								     sizes[i].flag));
		}
	}

	if (!(flags & HUGETLB_FLAGS))
		SKIP(return, "KVM can't back guest_memfd with huge pages");

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		EXPECT_EQ(hugetlb_pool_exists(sizes[i].page_size),
			  !!(flags & sizes[i].flag));
	}
}

TEST_GMEM(bad_flags)
{
	u64 known = vm_check_cap(self->vm, KVM_CAP_GUEST_MEMFD_FLAGS) | HUGETLB_FLAGS;
	u64 flag;

	EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, SZ_1G, HUGETLB_FLAGS));

	for (flag = 1; flag; flag <<= 1) {
		if (flag & known)
			continue;
		EXPECT_ERRNO(EINVAL, create(1, flag));
	}

	EXPECT_LEDGER(0, 0);
}

TEST_GMEM(bad_sizes)
{
	const u64 invalid[] = {
		0, 1, SZ_4K, PAGE / 2, PAGE - SZ_4K, PAGE - 1, PAGE + 1,
		PAGE + SZ_4K, PAGE + PAGE / 2, -PAGE, -1ULL, 1ULL << 63,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(invalid); i++) {
		EXPECT_ERRNO(EINVAL, __vm_create_guest_memfd(self->vm, invalid[i], FLAG))
			TH_LOG("size 0x%lx", (unsigned long)invalid[i]);
	}
	EXPECT_LEDGER(0, 0);
}

TEST_GMEM(ledger)
{
	int fd = create(2, 0);

	ASSERT_LE(0, fd);
	EXPECT_LEDGER(2, 0);

	allocate(fd, 1, 1);
	EXPECT_LEDGER(2, 1);
	allocate(fd, 0, 2);
	EXPECT_LEDGER(2, 2);
	allocate(fd, 0, 2);
	EXPECT_LEDGER(2, 2);

	punch(fd, 0, 1);
	EXPECT_LEDGER(2, 1);
	punch(fd, 0, 2);
	EXPECT_LEDGER(2, 0);
	punch(fd, 0, 2);
	EXPECT_LEDGER(2, 0);

	allocate(fd, 0, 1);
	EXPECT_LEDGER(2, 1);
	close(fd);
	EXPECT_LEDGER(0, 0);
}

TEST_GMEM(last_close)
{
	int fd = create(2, GUEST_MEMFD_FLAG_MMAP), other = kvm_dup(fd);
	char *mem = kvm_mmap(2 * PAGE, PROT_READ, MAP_SHARED, fd);

	allocate(fd, 0, 1);
	kvm_vm_free(self->vm);
	allocate(fd, 0, 2);
	punch(fd, 1, 1);
	EXPECT_LEDGER(2, 1);

	close(fd);
	EXPECT_LEDGER(2, 1);
	close(other);
	EXPECT_LEDGER(2, 1);
	kvm_munmap(mem, 2 * PAGE);
	EXPECT_LEDGER(0, 0);
}

TEST_GMEM(stat)
{
	int fd = create(2, 0);
	struct stat st;
	int nr;

	for (nr = 0; nr <= 2; nr++) {
		if (nr)
			allocate(fd, nr - 1, 1);
		ASSERT_EQ(0, fstat(fd, &st));
		EXPECT_EQ(2 * PAGE, st.st_size);
		EXPECT_EQ(PAGE, st.st_blksize);
		EXPECT_EQ(nr * PAGE / 512, st.st_blocks);
	}

	punch(fd, 0, 1);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(PAGE / 512, st.st_blocks);
}

TEST_GMEM(fallocate_ranges)
{
	const struct {
		int mode;
		loff_t offset, len;
		int error;
	} bad[] = {
		{ PUNCH, 0, SZ_4K, EINVAL },
		{ PUNCH, 0, PAGE - SZ_4K, EINVAL },
		{ PUNCH, 0, PAGE + SZ_4K, EINVAL },
		{ PUNCH, SZ_4K, PAGE, EINVAL },
		{ PUNCH, SZ_4K, PAGE - SZ_4K, EINVAL },
		{ PUNCH, PAGE / 2, PAGE, EINVAL },
		{ PUNCH, 2 * PAGE, SZ_4K, EINVAL },
		{ PUNCH, 2 * PAGE + SZ_4K, PAGE, EINVAL },
		{ ALLOCATE, 1, PAGE, EINVAL },
		{ ALLOCATE, 0, PAGE - 1, EINVAL },
		{ ALLOCATE, 2 * PAGE, SZ_4K, EINVAL },
		{ ALLOCATE, PAGE, PAGE + SZ_4K, EINVAL },
		{ 0, 0, PAGE, EOPNOTSUPP },
		{ FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, PAGE, EOPNOTSUPP },
	};
	int i, fd = create(2, 0);

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_ERRNO(bad[i].error,
			     fallocate(fd, bad[i].mode, bad[i].offset, bad[i].len))
			TH_LOG("range %d of the table", i);
		EXPECT_LEDGER(2, 0);
	}

	/* Any part of a huge page allocates all of it. */
	kvm_fallocate(fd, ALLOCATE, SZ_4K, SZ_4K);
	EXPECT_LEDGER(2, 1);
	kvm_fallocate(fd, ALLOCATE, PAGE - SZ_4K, 2 * SZ_4K);
	EXPECT_LEDGER(2, 2);

	/* There is nothing behind the end of the file to complain about. */
	punch(fd, 2, 1);
	EXPECT_LEDGER(2, 2);
	punch(fd, 1, 2);
	EXPECT_LEDGER(2, 1);
}

TEST_GMEM(mmap)
{
	const u64 flags[] = {
		GUEST_MEMFD_FLAG_MMAP,
		GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
	};
	int i, fd = create(1, 0);

	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));
	EXPECT_EQ(ENODEV, errno);
	close(fd);

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		fd = create(1, flags[i]);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
		EXPECT_EQ(EINVAL, errno);
		close(fd);
	}
	EXPECT_LEDGER(0, 0);
}

/* The host can't touch private memory, be it allocated or not. */
TEST_GMEM(host_faults_on_private)
{
	int fd = create(1, GUEST_MEMFD_FLAG_MMAP);
	char *mem = kvm_mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);

	TEST_EXPECT_SIGBUS((void)READ_ONCE(mem[0]));
	TEST_EXPECT_SIGBUS(WRITE_ONCE(mem[PAGE - 1], 1));
	EXPECT_LEDGER(1, 0);
	allocate(fd, 0, 1);
	TEST_EXPECT_SIGBUS((void)READ_ONCE(mem[PAGE - 1]));
	TEST_EXPECT_SIGBUS(WRITE_ONCE(mem[0], 1));
	EXPECT_LEDGER(1, 1);

	kvm_munmap(mem, PAGE);
	close(fd);
	EXPECT_LEDGER(0, 0);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}
