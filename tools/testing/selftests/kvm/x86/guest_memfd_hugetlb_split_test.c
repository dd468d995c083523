// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test of which pieces a HugeTLB page of guest_memfd consists when parts of it are
 * shared: single pages where the host needs them, and all else as large as possible.
 * It costs no more struct pages than that, and one folio again when the last page is
 * private again.  See guest_memfd_hugetlb_split_hold_test for pages that are held.
 *
 * Every case ends with the pool as it began, which is checked after its process is
 * gone.
 */
#include "gmem_pieces.h"
#include "gmem_test.h"
#include "kselftest_harness.h"

#define TEST_SPLIT(name)	TEST_F_TIMEOUT(gmem_split, name, PIECES_TIMEOUT)

FIXTURE(gmem_split)
{
	struct hugetlb_ledger ledger;
	struct gmem_conversion t;
	struct gmem_events events;
};

FIXTURE_VARIANT(gmem_split)
{
	size_t page_size;
	u64 flag;
};

FIXTURE_VARIANT_ADD(gmem_split, 2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
};

FIXTURE_VARIANT_ADD(gmem_split, 1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
};

/* Pages of 4K in a huge page, and the order of that. */
#define NR	(variant->page_size / PAGE_SIZE)
#define ORDER	__builtin_ctzl(NR)

FIXTURE_SETUP(gmem_split)
{
	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 2) < 2)
		SKIP(return, "The pool hasn't got two pages of %zu bytes", variant->page_size);

	hugetlb_ledger_open(&self->ledger, variant->page_size);
}

FIXTURE_TEARDOWN_PARENT(gmem_split)
{
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	hugetlb_ledger_close(&self->ledger);
}

/* Test bodies know self and variant; so do these.  The file has two huge pages. */
#define open_file(flags)							\
do {										\
	gmem_pieces_init(&self->t, 2 * variant->page_size, variant->flag | (flags)); \
	self->events = gmem_events();						\
} while (0)

#define EXPECT_SPLITS(nr)	expect_events(&self->events, nr, 0, 0)
#define EXPECT_MERGES(nr)	expect_events(&self->events, 0, nr, 0)
#define EXPECT_NOTHING()	expect_events(&self->events, 0, 0, 0)

/* What @nr pages that were taken out of whole huge pages may cost at most. */
static void expect_budget(struct gmem_conversion *t, u64 vmemmap_whole, u64 nr)
{
	struct gmem_info info = gmem_info(t->fd);
	u64 full = info.allocated / PAGE_SIZE * 64;

	if (vmemmap_whole < full)
		TEST_ASSERT(info.vmemmap <= vmemmap_whole + nr * PIECES_BUDGET,
			    "Expected %lu bytes of vmemmap and 64K for each of %lu pages, got %lu",
			    vmemmap_whole, nr, info.vmemmap);
	TEST_ASSERT(info.vmemmap <= full, "Expected at most %lu bytes of vmemmap, got %lu",
		    full, info.vmemmap);
}

/* One page at a time: with the page are out its buddy, the buddy of both, and so on. */
static void expect_one_page_out(struct gmem_conversion *t, u64 pgoff, int top)
{
	struct gmem_pieces pieces = gmem_info(t->fd).pieces;
	int order;

	TEST_ASSERT(pieces.nr[0] == 2, "Expected two single pages, found %lu", pieces.nr[0]);
	for (order = 1; order < top; order++)
		TEST_ASSERT(pieces.nr[order] == 1, "Expected one piece of order %d, found %lu",
			    order, pieces.nr[order]);
	TEST_ASSERT(!pieces.nr[top], "Expected no whole page, found %lu", pieces.nr[top]);

	host_expect(t, pgoff, 1);
	for (order = 0; order < top; order++)
		host_faults(t, pgoff ^ BIT_ULL(order));
}

TEST_SPLIT(one_page)
{
	const u64 pages[] = { 0, 1, 2, 3, 63, 64, NR / 2 + 5, NR - 1 };
	struct gmem_conversion *t = &self->t;
	u64 vmemmap;
	int i;

	open_file(GMEM_MMAP_PRIVATE);
	guest_fill(t, 0, NR);
	vmemmap = gmem_info(t->fd).vmemmap;
	/* The pool's pages are as old as the host. */
	EXPECT_EQ(hugetlb_pool_has_hvo() ? PAGE_SIZE : NR * 64, vmemmap);

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		expect_whole(t, 1);
		to_shared(t, pages[i], 1);
		EXPECT_SPLITS(1);
		EXPECT_EQ(2 * NR - 1, nr_private(t));
		expect_pieces(t, 1, &(struct gmem_run) { pages[i], 1 }, 1);
		expect_one_page_out(t, pages[i], ORDER);
		expect_budget(t, vmemmap, 1);
		guest_expect(t, 0, NR);

		to_private(t, pages[i], 1);
		EXPECT_MERGES(1);
		EXPECT_EQ(2 * NR, nr_private(t));
		expect_whole(t, 1);
		EXPECT_EQ(vmemmap, gmem_info(t->fd).vmemmap);
		host_faults(t, pages[i]);
		guest_expect(t, 0, NR);
	}
}

/* Both huge pages are in use; each range lies in the first or in both. */
TEST_SPLIT(ranges)
{
	const struct gmem_run runs[] = {
		{ 5, 3 },
		{ BLOCK_NR - 3, 7 },
		{ NR - 3, 8 },
		{ 0, NR },
		{ 0, NR - 1 },
		{ 1, NR - 1 },
		{ 1, NR - 2 },
	};
	struct gmem_conversion *t = &self->t;
	const struct gmem_run *run;
	u64 nr_huge, vmemmap;

	open_file(GMEM_MMAP_PRIVATE);
	guest_fill(t, 0, 2 * NR);
	vmemmap = gmem_info(t->fd).vmemmap;

	for (run = runs; run < runs + ARRAY_SIZE(runs); run++) {
		nr_huge = run->first + run->nr > NR ? 2 : 1;
		to_shared(t, run->first, run->nr);
		EXPECT_SPLITS(nr_huge);
		EXPECT_EQ(2 * NR - run->nr, nr_private(t));
		expect_pieces(t, 2, run, 1);
		expect_budget(t, vmemmap, run->nr);

		host_expect(t, run->first, run->nr);
		host_faults(t, run->first + run->nr);
		if (run->first)
			host_faults(t, run->first - 1);
		guest_expect(t, 0, 2 * NR);

		to_private(t, run->first, run->nr);
		EXPECT_MERGES(nr_huge);
		expect_whole(t, 2);
		EXPECT_EQ(vmemmap, gmem_info(t->fd).vmemmap);
	}
	guest_expect(t, 0, 2 * NR);
}

#define NR_SCATTERED	64

/* Each page is split off a piece of its own, and they go back in another order. */
TEST_SPLIT(scattered)
{
	struct gmem_run runs[NR_SCATTERED];
	struct gmem_conversion *t = &self->t;
	u64 i, vmemmap;

	open_file(GMEM_MMAP_PRIVATE);
	guest_fill(t, 0, NR);
	vmemmap = gmem_info(t->fd).vmemmap;

	for (i = 0; i < NR_SCATTERED; i++) {
		runs[i] = (struct gmem_run) { i * (NR / NR_SCATTERED) + i % 8, 1 };
		to_shared(t, runs[i].first, 1);
		expect_pieces(t, 1, runs, i + 1);
		expect_budget(t, vmemmap, i + 1);
	}
	EXPECT_SPLITS(1);
	for (i = 0; i < NR_SCATTERED; i++)
		host_expect(t, runs[i].first, 1);
	guest_expect(t, 0, NR);

	for (i = 0; i < NR_SCATTERED - 1; i++)
		to_private(t, runs[i * 37 % NR_SCATTERED].first, 1);
	EXPECT_NOTHING();
	expect_pieces(t, 1, &runs[i * 37 % NR_SCATTERED], 1);
	expect_budget(t, vmemmap, 1);

	to_private(t, runs[i * 37 % NR_SCATTERED].first, 1);
	EXPECT_MERGES(1);
	expect_whole(t, 1);
	EXPECT_EQ(vmemmap, gmem_info(t->fd).vmemmap);
	guest_expect(t, 0, NR);
}

/* Neighbours join and part: pieces are those of all conversions taken together. */
TEST_SPLIT(overlapping)
{
	struct gmem_conversion *t = &self->t;

	open_file(GMEM_MMAP_PRIVATE);
	guest_fill(t, 0, NR);

	to_shared(t, 10, 4);
	to_shared(t, 12, 20);
	expect_pieces(t, 1, &(struct gmem_run) { 10, 22 }, 1);
	to_private(t, 16, 8);
	expect_pieces(t, 1, (struct gmem_run []) { { 10, 6 }, { 24, 8 } }, 2);
	to_private(t, 0, 12);
	expect_pieces(t, 1, (struct gmem_run []) { { 12, 4 }, { 24, 8 } }, 2);
	to_shared(t, 0, 30);
	expect_pieces(t, 1, &(struct gmem_run) { 0, 32 }, 1);
	EXPECT_SPLITS(1);

	host_expect(t, 0, 32);
	guest_expect(t, 0, NR);
	to_private(t, 0, 2 * NR);
	EXPECT_MERGES(1);
	expect_whole(t, 1);
	guest_expect(t, 0, NR);
}

/* Nobody but the host makes shared memory fall to pieces. */
TEST_SPLIT(shared_from_the_start)
{
	const u64 first = NR - BLOCK_NR, touched = first + 100;
	struct gmem_conversion *t = &self->t;
	struct gmem_run run = { first, BLOCK_NR };
	u64 vmemmap;

	open_file(GMEM_MMAP_SHARED);
	kvm_fallocate(t->fd, ALLOCATE, 0, PAGE_SIZE);
	expect_whole(t, 1);
	guest_fill(t, 0, 2 * NR);
	expect_whole(t, 2);
	EXPECT_NOTHING();
	vmemmap = gmem_info(t->fd).vmemmap;

	host_expect(t, touched, 1);
	expect_pieces(t, 2, &run, 1);
	EXPECT_SPLITS(1);
	if (vmemmap < 2 * NR * 64)
		EXPECT_LE(gmem_info(t->fd).vmemmap, vmemmap + 2 * PIECES_BUDGET);

	host_expect(t, first, BLOCK_NR);
	expect_pieces(t, 2, &run, 1);
	EXPECT_NOTHING();

	/* The block beside it is another huge page's. */
	run.nr += BLOCK_NR;
	host_expect(t, NR, 1);
	expect_pieces(t, 2, &run, 1);
	EXPECT_SPLITS(1);

	/* Shared memory stays as it is until it is private. */
	guest_expect(t, 0, 2 * NR);
	to_private(t, 0, 2 * NR);
	EXPECT_MERGES(2);
	expect_whole(t, 2);
	EXPECT_EQ(vmemmap, gmem_info(t->fd).vmemmap);
	guest_expect(t, 0, 2 * NR);
}

/* Of the 2M around what the host touches, the shared run is split. */
TEST_SPLIT(touch_beside_private)
{
	struct gmem_conversion *t = &self->t;
	struct gmem_run runs[] = { { 0, 100 }, { 104, BLOCK_NR - 104 } };

	open_file(GMEM_MMAP_SHARED);
	guest_fill(t, 0, NR);
	to_private(t, 100, 4);
	expect_whole(t, 1);
	EXPECT_NOTHING();

	host_faults(t, 101);
	expect_whole(t, 1);
	EXPECT_NOTHING();

	host_expect(t, 50, 1);
	expect_pieces(t, 1, &runs[0], 1);
	EXPECT_SPLITS(1);
	host_expect(t, 300, 1);
	expect_pieces(t, 1, runs, 2);
	host_faults(t, 100);
	host_faults(t, 103);
	EXPECT_NOTHING();

	/* What becomes shared in between is what is asked for, and no more. */
	to_shared(t, 101, 1);
	expect_pieces(t, 1, (struct gmem_run []) { runs[0], { 101, 1 }, runs[1] }, 3);
	host_expect(t, 101, 1);
	guest_expect(t, 0, NR);
}

/* The file knows what is shared before there is anything to split. */
TEST_SPLIT(shared_before_allocation)
{
	struct gmem_run runs[] = { { 3, 2 }, { NR + 7, 1 } };
	struct gmem_conversion *t = &self->t;

	open_file(GMEM_MMAP_PRIVATE);
	to_shared(t, runs[0].first, runs[0].nr);
	to_shared(t, runs[1].first, runs[1].nr);
	expect_whole(t, 0);
	EXPECT_NOTHING();

	/* The host allocates the first huge page, the guest the second. */
	WRITE_ONCE(*(u64 *)(t->mem + runs[0].first * PAGE_SIZE), PAGE_VAL(runs[0].first));
	expect_pieces(t, 1, runs, 1);
	EXPECT_SPLITS(1);
	guest_expect(t, runs[0].first, 1);
	host_faults(t, runs[0].first - 1);

	guest_fill(t, 0, 2 * NR);
	expect_pieces(t, 2, runs, 1);
	EXPECT_NOTHING();
	host_expect(t, runs[1].first, 1);
	expect_pieces(t, 2, runs, 2);
	EXPECT_SPLITS(1);

	host_expect(t, runs[0].first, runs[0].nr);
	guest_expect(t, 0, 2 * NR);
	to_private(t, 0, 2 * NR);
	EXPECT_MERGES(2);
	expect_whole(t, 2);
}

/* Freed while it is split, a page is the pool's at once, and as good as new. */
TEST_SPLIT(close_split)
{
	struct gmem_conversion *t = &self->t;
	u64 vmemmap;

	open_file(GMEM_MMAP_PRIVATE);
	guest_fill(t, 0, 2 * NR);
	vmemmap = gmem_info(t->fd).vmemmap;
	to_shared(t, 5, NR);
	host_expect(t, 5, NR);
	EXPECT_SPLITS(2);
	EXPECT_BALANCE(&self->ledger, 2, 2);
	gmem_conversion_free(t);
	EXPECT_BALANCE(&self->ledger, 0, 0);
	EXPECT_MERGES(2);

	expect_pool_as_new(variant->page_size, variant->flag, vmemmap / 2);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}
