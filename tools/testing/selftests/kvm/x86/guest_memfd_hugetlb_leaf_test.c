// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test how many faults the guest takes, and with how many leaves of which size KVM maps
 * it, when parts of a HugeTLB page of a guest_memfd are converted: a conversion takes
 * away nothing but what it converts, and what is uniform again is mapped as a whole.
 */
#include <linux/sizes.h>
#include <pthread.h>

#include "gmem_conversion.h"
#include "gmem_leaves.h"
#include "gmem_pieces.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define PAGES_2M	(SZ_2M / PAGE_SIZE)

FIXTURE(gmem_leaf)
{
	struct gmem_conversion t;
	/* Those of the guest's program and page tables. */
	struct leaves others;
	u64 nr;
};

FIXTURE_VARIANT(gmem_leaf)
{
	size_t page_size;
	u64 flags;
};

FIXTURE_VARIANT_ADD(gmem_leaf, 2M)
{
	.page_size = SZ_2M,
	.flags = GUEST_MEMFD_FLAG_HUGETLB_2M,
};

FIXTURE_VARIANT_ADD(gmem_leaf, 1G)
{
	.page_size = SZ_1G,
	.flags = GUEST_MEMFD_FLAG_HUGETLB_1G,
};

#define EXPECT_LEAVES(_1g, _2m, _4k)	\
	EXPECT_SAME_LEAVES(leaves_since(self->t.vm, self->others), _1g, _2m, _4k)

/* The huge page is mapped as a whole. */
#define EXPECT_ONE_LEAF()							\
	EXPECT_LEAVES(variant->page_size == SZ_1G, variant->page_size == SZ_2M, 0)

/* One huge page, all of which the guest has touched. */
FIXTURE_SETUP(gmem_leaf)
{
	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 1) < 1)
		SKIP(return, "The pool hasn't got a page of %zu bytes", variant->page_size);

	self->nr = variant->page_size / PAGE_SIZE;
	gmem_pieces_init(&self->t, variant->page_size, variant->flags | GMEM_MMAP_PRIVATE);
	guest_fill(&self->t, 0, self->nr);

	self->others = count_leaves(self->t.vm);
	if (variant->page_size == SZ_1G)
		self->others.nr_1g--;
	else
		self->others.nr_2m--;
}

FIXTURE_TEARDOWN(gmem_leaf)
{
	gmem_conversion_free(&self->t);
}

static long count_faults_beside(struct gmem_conversion *t, u64 page, u64 nr)
{
	return count_faults(t, 0, page) + count_faults(t, page + 1, nr - page - 1);
}

TEST_F_TIMEOUT(gmem_leaf, whole, PIECES_TIMEOUT)
{
	EXPECT_ONE_LEAF();
	EXPECT_EQ(0, count_faults(&self->t, 0, self->nr));
}

/*
 * What is beside the page stays mapped, with 2M and, around the page, 4K.  After the
 * page has come back, the guest's next touch of it maps all with one leaf again.
 */
TEST_F_TIMEOUT(gmem_leaf, one_page, PIECES_TIMEOUT)
{
	const u64 pages[] = { 0, self->nr / 2 + 5, self->nr - 1 };
	long nr_2m = variant->page_size == SZ_1G ? SZ_1G / SZ_2M - 1 : 0;
	struct gmem_conversion *t = &self->t;
	int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		u64 page = pages[i];

		to_shared(t, page, 1);
		EXPECT_LEAVES(0, nr_2m, PAGES_2M - 1);
		EXPECT_EQ(0, count_faults_beside(t, page, self->nr));
		host_expect_page(t, page);
		EXPECT_EQ(1, count_faults(t, page, 1));
		EXPECT_LEAVES(0, nr_2m, PAGES_2M);

		to_private(t, page, 1);
		EXPECT_LEAVES(0, nr_2m, PAGES_2M - 1);
		EXPECT_EQ(0, count_faults_beside(t, page, self->nr));
		EXPECT_EQ(1, count_faults(t, page, 1));
		EXPECT_ONE_LEAF();
		EXPECT_EQ(0, count_faults(t, 0, self->nr));
	}
}

/* Edges of 2M need no leaves of 4K. */
TEST_F_TIMEOUT(gmem_leaf, aligned_range, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;
	u64 first = 3 * PAGES_2M, nr = 2 * PAGES_2M;

	if (variant->page_size == SZ_2M)
		SKIP(return, "It has one range of 2M");

	to_shared(t, first, nr);
	EXPECT_LEAVES(0, SZ_1G / SZ_2M - 2, 0);
	EXPECT_EQ(0, count_faults(t, 0, first));
	EXPECT_EQ(0, count_faults(t, first + nr, self->nr - first - nr));
	EXPECT_EQ(2, count_faults(t, first, nr));
	EXPECT_LEAVES(0, SZ_1G / SZ_2M, 0);

	to_private(t, first, nr);
	EXPECT_EQ(1, count_faults(t, first, 1));
	EXPECT_ONE_LEAF();
}

#define NR_SCATTERED	100

TEST_F_TIMEOUT(gmem_leaf, scattered, PIECES_TIMEOUT)
{
	const u64 step = self->nr / NR_SCATTERED;
	struct gmem_conversion *t = &self->t;
	int i;

	for (i = 0; i < NR_SCATTERED; i++)
		to_shared(t, i * step, 1);
	if (variant->page_size == SZ_1G)
		EXPECT_LEAVES(0, SZ_1G / SZ_2M - NR_SCATTERED, NR_SCATTERED * (PAGES_2M - 1));
	else
		EXPECT_LEAVES(0, 0, PAGES_2M - NR_SCATTERED);
	EXPECT_EQ(NR_SCATTERED, count_faults(t, 0, self->nr));

	for (i = 0; i < NR_SCATTERED; i++)
		to_private(t, i * step, 1);
	EXPECT_EQ(1, count_faults(t, 0, self->nr));
	EXPECT_ONE_LEAF();
}

/* The same for memory that the guest shares from the beginning. */
TEST_F_TIMEOUT(gmem_leaf, page_of_shared_memory, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;
	u64 page = self->nr / 2 + 5;

	to_shared(t, 0, self->nr);
	EXPECT_EQ(1, count_faults(t, 0, self->nr));
	EXPECT_ONE_LEAF();

	/* Nor does it matter that the host has them mapped at userspace_addr. */
	host_expect(t, page - 2, 4);
	to_private(t, page, 1);
	EXPECT_EQ(0, count_faults_beside(t, page, self->nr));
	EXPECT_EQ(1, count_faults(t, page, 1));
}

static void pre_fault(struct gmem_conversion *t, u64 first, u64 nr)
{
	struct kvm_pre_fault_memory range = {
		.gpa = GMEM_GPA + first * PAGE_SIZE,
		.size = nr * PAGE_SIZE,
	};

	while (range.size) {
		int r = __vcpu_ioctl(t->vcpu, KVM_PRE_FAULT_MEMORY, &range);

		TEST_ASSERT(!r || errno == EINTR || errno == EAGAIN,
			    KVM_IOCTL_ERROR(KVM_PRE_FAULT_MEMORY, r));
	}
}

TEST_F_TIMEOUT(gmem_leaf, pre_fault, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;

	/* Private, shared and mixed; a page that is mapped may be mapped larger. */
	to_shared(t, 1, 1);
	pre_fault(t, 0, self->nr);
	EXPECT_EQ(0, count_faults(t, 0, self->nr));

	to_shared(t, 0, self->nr);
	pre_fault(t, 0, self->nr);
	EXPECT_ONE_LEAF();
	EXPECT_EQ(0, count_faults(t, 0, self->nr));

	to_private(t, 0, self->nr);
	pre_fault(t, 0, self->nr);
	EXPECT_ONE_LEAF();
	EXPECT_EQ(0, count_faults(t, 0, self->nr));
}

#define NR_CONVERSIONS	200

struct converter {
	struct gmem_conversion *t;
	u64 nr;
	bool done;
};

static void *convert(void *data)
{
	struct converter *c = data;
	int i;

	for (i = 0; i < NR_CONVERSIONS / 2; i++) {
		u64 page = (i * 7919 + 13) % c->nr;

		to_shared(c->t, page, 1);
		to_private(c->t, page, 1);
	}
	WRITE_ONCE(c->done, true);
	return NULL;
}

/*
 * A vCPU that faults while its page is being converted may exit, for the VMM to find
 * out what the page is; it is simply run again.  How often a fault is retried until a
 * conversion is through says nothing: count what is mapped in the end.
 */
static long count_faults_in_race(struct gmem_conversion *t, u64 nr)
{
	long before = vcpu_get_stat(t->vcpu, pf_fixed);
	typeof(gmem_pieces_todo) todo = { 0, nr, false };
	struct ucall uc;

	write_guest_global(t->vm, gmem_pieces_todo, todo);
	while (_vcpu_run(t->vcpu))
		TEST_ASSERT(errno == EFAULT && t->vcpu->run->exit_reason == KVM_EXIT_MEMORY_FAULT,
			    "Expected a memory fault, if any, got %s", strerror(errno));

	if (get_ucall(t->vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);
	return vcpu_get_stat(t->vcpu, pf_fixed) - before;
}

/* The guest looks at all of its memory all the time: no lost page, one fault each. */
TEST_F_TIMEOUT(gmem_leaf, while_guest_runs, PIECES_TIMEOUT)
{
	struct converter c = { .t = &self->t, .nr = self->nr };
	pthread_t thread;
	long faults = 0;

	kvm_pthread_create(&thread, NULL, convert, &c);
	while (!READ_ONCE(c.done))
		faults += count_faults_in_race(&self->t, self->nr);
	kvm_pthread_join(thread, NULL);
	faults += count_faults(&self->t, 0, self->nr);

	TH_LOG("%ld faults for %d conversions", faults, NR_CONVERSIONS);
	EXPECT_LE(faults, NR_CONVERSIONS + 1);
	EXPECT_ONE_LEAF();
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());
	__TEST_REQUIRE(get_kvm_param_bool("tdp_mmu"), "Shadow pages are zapped as a whole");

	return test_harness_run(argc, argv);
}
