// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test with which leaves KVM maps HugeTLB pages of a guest_memfd in memslots that don't
 * have all of one, or have it where the guest's addresses aren't aligned like it.
 */
#include <linux/sizes.h>

#include "gmem_conversion.h"
#include "gmem_leaves.h"
#include "gmem_pieces.h"
#include "gmem_test.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"

#define OTHER_SLOT	(GMEM_SLOT + 1)

/* Page tables of a guest that has 1G, mapped as a whole: what four levels need, and more. */
#define TABLES_BUDGET	(24 * 1024)

/* A file of two huge pages, nothing of which is in a memslot yet. */
FIXTURE(gmem_slots)
{
	struct gmem_conversion t;
	u64 nr;
};

/* Leaves have a size, or the next smaller one. */
FIXTURE_VARIANT(gmem_slots)
{
	size_t page_size;
	u64 flag;
	size_t next_size;
};

FIXTURE_VARIANT_ADD(gmem_slots, 2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.next_size = SZ_4K,
};

FIXTURE_VARIANT_ADD(gmem_slots, 1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.next_size = SZ_2M,
};

static int set_slot(struct gmem_conversion *t, u32 slot, u32 flags, size_t gpa_offset,
		    size_t size, size_t offset)
{
	return __vm_set_user_memory_region2(t->vm, slot, KVM_MEM_GUEST_MEMFD | flags,
					    GMEM_GPA + gpa_offset, size, t->slot_mem + offset,
					    t->fd, offset);
}

FIXTURE_SETUP(gmem_slots)
{
	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 2) < 2)
		SKIP(return, "The pool hasn't got two pages of %zu bytes", variant->page_size);

	self->nr = variant->page_size / PAGE_SIZE;
	gmem_pieces_init(&self->t, 2 * variant->page_size, variant->flag | GMEM_MMAP_PRIVATE);
	ASSERT_EQ(0, set_slot(&self->t, GMEM_SLOT, 0, 0, 0, 0));
}

FIXTURE_TEARDOWN(gmem_slots)
{
	gmem_conversion_free(&self->t);
}

/*
 * The leaves for pages that are all in one huge page of the file.  The guest touches
 * them twice: the first time KVM maps the guest's page tables for them, too.
 */
static struct leaves fill(struct gmem_conversion *t, u64 first, u64 nr, size_t huge_offset)
{
	struct leaves before;

	guest_fill(t, first, nr);
	kvm_fallocate(t->fd, PUNCH, huge_offset, gmem_info(t->fd).page_size);
	before = count_leaves(t->vm);
	guest_fill(t, first, nr);
	return leaves_since(t->vm, before);
}

#define EXPECT_ONE_LEAF(is)						\
	EXPECT_SAME_LEAVES(is, variant->page_size == SZ_1G, variant->page_size == SZ_2M, 0)

#define EXPECT_NEXT_SIZE(is, nr)					\
	EXPECT_SAME_LEAVES(is, 0, variant->page_size == SZ_1G ? (nr) : 0,	\
			   variant->page_size == SZ_2M ? (nr) : 0)

/* Two slots of one file: in the second one, addresses are shifted against the file. */
TEST_F_TIMEOUT(gmem_slots, congruence, PIECES_TIMEOUT)
{
	const size_t huge = variant->page_size, shift = variant->next_size;
	struct gmem_conversion *t = &self->t;
	const u64 nr_shift = shift / PAGE_SIZE;

	ASSERT_EQ(0, set_slot(t, GMEM_SLOT, 0, 0, huge, 0));
	ASSERT_EQ(0, set_slot(t, OTHER_SLOT, 0, huge, huge - shift, huge + shift));

	EXPECT_ONE_LEAF(fill(t, 0, self->nr, 0));
	EXPECT_NEXT_SIZE(fill(t, self->nr, self->nr - nr_shift, huge), huge / shift - 1);
	guest_expect(t, 0, 2 * self->nr - nr_shift);
	expect_whole(t, 2);

	/* What the guest has at the shifted address is what the file has. */
	to_shared(t, self->nr + nr_shift + 7, 1);
	EXPECT_EQ(PAGE_VAL(self->nr + 7),
		  READ_ONCE(*(u64 *)(t->mem + (self->nr + nr_shift + 7) * PAGE_SIZE)));
	guest_expect(t, 0, 2 * self->nr - nr_shift);
	to_private(t, self->nr + nr_shift + 7, 1);
	guest_expect(t, 0, 2 * self->nr - nr_shift);
	expect_whole(t, 2);
}

/* The slot begins, or ends, in the middle of a huge page. */
TEST_F_TIMEOUT(gmem_slots, half_a_page, PIECES_TIMEOUT)
{
	const size_t half = variant->page_size / 2;
	struct gmem_conversion *t = &self->t;
	const u64 nr = self->nr / 2;

	ASSERT_EQ(0, set_slot(t, GMEM_SLOT, 0, half, half, half));
	ASSERT_EQ(0, set_slot(t, OTHER_SLOT, 0, 2 * half, half, 2 * half));
	EXPECT_NEXT_SIZE(fill(t, nr, nr, 0), half / variant->next_size);
	EXPECT_NEXT_SIZE(fill(t, 2 * nr, nr, 2 * half), half / variant->next_size);
	expect_whole(t, 2);

	/* Of a page beside a slot, in the same huge page, the guest notices nothing. */
	to_shared(t, nr - 1, 1);
	to_shared(t, 3 * nr, 1);
	EXPECT_EQ(0, count_faults(t, nr, 2 * nr));
	to_private(t, nr - 1, 1);
	to_private(t, 3 * nr, 1);
	EXPECT_EQ(0, count_faults(t, nr, 2 * nr));

	/* What reaches into the slots and beyond takes away what it converts. */
	to_shared(t, 0, 4 * nr);
	EXPECT_EQ(2 * half / variant->next_size, count_faults(t, nr, 2 * nr));
	to_private(t, 0, 4 * nr);
	EXPECT_EQ(2 * half / variant->next_size, count_faults(t, nr, 2 * nr));
	expect_whole(t, 2);
}

/* KVM doesn't keep track of what is written, so leaves are never small for that. */
TEST_F_TIMEOUT(gmem_slots, no_dirty_log, PIECES_TIMEOUT)
{
	const size_t huge = variant->page_size;
	struct gmem_conversion *t = &self->t;

	EXPECT_EQ(-1, set_slot(t, GMEM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, 0, huge, 0));
	EXPECT_EQ(EINVAL, errno);
	ASSERT_EQ(0, set_slot(t, GMEM_SLOT, 0, 0, huge, 0));
	EXPECT_EQ(-1, set_slot(t, GMEM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, 0, huge, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_ONE_LEAF(fill(t, 0, self->nr, 0));
}

/* The guest's own page tables and program take some of KVM's. */
TEST_F_TIMEOUT(gmem_slots, page_tables, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;
	u64 tables;

	ASSERT_EQ(0, set_slot(t, GMEM_SLOT, 0, 0, variant->page_size, 0));
	guest_do(t, 0, 0, false);
	tables = vm_event_count("nr_sec_page_table_pages");
	guest_fill(t, 0, self->nr);
	tables = (vm_event_count("nr_sec_page_table_pages") - tables) * PAGE_SIZE;
	EXPECT_LE(tables, TABLES_BUDGET);
	TH_LOG("%lu bytes of page tables for %zu", tables, variant->page_size);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());
	__TEST_REQUIRE(get_kvm_param_bool("tdp_mmu"), "Shadow pages are zapped as a whole");

	return test_harness_run(argc, argv);
}
