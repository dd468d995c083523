/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of tests that create guest_memfd files out of pages of the HugeTLB pool,
 * of either size, and run no guest.
 *
 * Every test ends with the pool as it began, which is checked after the test's
 * process is gone, i.e. after even an abandoned file has been released.
 * hugetlb_ledger_init() has to be called in main().
 */
#ifndef SELFTEST_KVM_GMEM_HUGETLB_H
#define SELFTEST_KVM_GMEM_HUGETLB_H

#include <linux/sizes.h>

#include "gmem_test.h"
#include "hugetlb_ledger.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define HUGETLB_FLAGS	(GUEST_MEMFD_FLAG_HUGETLB_2M | GUEST_MEMFD_FLAG_HUGETLB_1G)

/* Zeroing gigabytes on an emulated host with a debug kernel takes its time. */
#define TIMEOUT_SECONDS	180
#define TEST_GMEM(name)	TEST_F_TIMEOUT(gmem_hugetlb, name, TIMEOUT_SECONDS)

FIXTURE(gmem_hugetlb)
{
	struct hugetlb_ledger ledger;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(gmem_hugetlb)
{
	u64 flag;
	size_t page_size;
	/* How many pages a test can count on. */
	long nr_pages;
	int nr_races;
};

FIXTURE_VARIANT_ADD(gmem_hugetlb, 2M)
{
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.page_size = SZ_2M,
	.nr_pages = 16,
	.nr_races = 50,
};

FIXTURE_VARIANT_ADD(gmem_hugetlb, 1G)
{
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.page_size = SZ_1G,
	.nr_pages = 2,
	.nr_races = 2,
};

#define PAGE	(variant->page_size)
#define FLAG	(variant->flag)

#define EXPECT_LEDGER(held, allocated)	\
	EXPECT_BALANCE(&self->ledger, held, allocated)

FIXTURE_SETUP(gmem_hugetlb)
{
	long available;

	self->vm = vm_create_barebones();
	if (!(vm_check_cap(self->vm, KVM_CAP_GUEST_MEMFD_FLAGS) & FLAG))
		SKIP(return, "KVM can't back guest_memfd with pages of this size");

	available = hugetlb_pool_grow(PAGE, variant->nr_pages);
	if (available < variant->nr_pages)
		SKIP(return, "The pool has %ld available pages, the test needs %ld",
		     available, variant->nr_pages);

	hugetlb_ledger_open(&self->ledger, PAGE);
}

/* In the parent: it restores the pool even if the test was killed. */
FIXTURE_TEARDOWN_PARENT(gmem_hugetlb)
{
	EXPECT_LEDGER(0, 0);
	hugetlb_ledger_close(&self->ledger);
}

/* Test bodies know self and variant; so do these. */
#define create(nr_pages, flags)		\
	__vm_create_guest_memfd(self->vm, (nr_pages) * PAGE, FLAG | (flags))
#define allocate(fd, first, nr_pages)	\
	kvm_fallocate(fd, ALLOCATE, (first) * PAGE, (nr_pages) * PAGE)
#define punch(fd, first, nr_pages)	\
	kvm_fallocate(fd, PUNCH, (first) * PAGE, (nr_pages) * PAGE)

#endif /* SELFTEST_KVM_GMEM_HUGETLB_H */
