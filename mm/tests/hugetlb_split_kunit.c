// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of mm/hugetlb_split.c: how pages are cut, what is left of them, and that
 * they come home.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/prandom.h>
#include <linux/vmalloc.h>

#include "hugetlb_split_kunit.h"

/*
 * The largest aligned block around @pos that lies on one side of the cut, by trying.
 */
static unsigned int oracle_order(const struct hugetlb_cut *cut, unsigned long pos)
{
	bool inside = pos >= cut->start && pos < cut->end;
	unsigned int order, best = 0;

	for (order = 0; 1UL << order <= cut->nr; order++) {
		unsigned long first = round_down(pos, 1UL << order);
		unsigned long end = first + (1UL << order);
		bool fits = inside ? first >= cut->start && end <= cut->end :
				     end <= cut->start || first >= cut->end;

		if (end <= cut->nr && fits && (!inside || order <= cut->order))
			best = order;
	}
	return best;
}

static unsigned long count_wrong_cuts(const struct hugetlb_cut *cut)
{
	unsigned long pos, sum = 0, wrong = 0;
	unsigned int order;

	for_each_hugetlb_piece(cut, pos, order) {
		wrong += pos != sum;
		wrong += !IS_ALIGNED(pos, 1UL << order);
		wrong += order != oracle_order(cut, pos);
		sum += 1UL << order;
	}
	return wrong + (sum != cut->nr);
}

/* Every range of every page of up to 64 pages, with every order inside. */
static void test_cut_all(struct kunit *test)
{
	struct hugetlb_cut cut;
	unsigned long wrong = 0, nr = 0;

	for (cut.nr = 1; cut.nr <= 64; cut.nr *= 2)
		for (cut.start = 0; cut.start < cut.nr; cut.start++)
			for (cut.end = cut.start + 1; cut.end <= cut.nr; cut.end++)
				for (cut.order = 0; 1 << cut.order <= cut.nr; cut.order++, nr++)
					wrong += count_wrong_cuts(&cut);

	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_GT(test, nr, 10000);
}

static unsigned long count_pieces(unsigned long nr, unsigned long start,
				  unsigned long end)
{
	struct hugetlb_cut cut = { .start = start, .end = end, .nr = nr };
	unsigned long pos, pieces = 0;
	unsigned int order;

	for_each_hugetlb_piece(&cut, pos, order)
		pieces++;
	return pieces;
}

/* One page costs as many pieces as the huge page has orders, wherever it is. */
static void test_cut_one_page(struct kunit *test)
{
	unsigned long pos;

	for (pos = 0; pos < 512; pos++)
		KUNIT_EXPECT_EQ(test, count_pieces(512, pos, pos + 1), 1 + 9);
	for (pos = 0; pos < 1 << 18; pos += 997)
		KUNIT_EXPECT_EQ(test, count_pieces(1 << 18, pos, pos + 1), 1 + 18);
	KUNIT_EXPECT_EQ(test, count_pieces(1 << 18, (1 << 18) - 1, 1 << 18), 1 + 18);
}

#define WORDS_PER_PAGE		(sizeof(struct page) / sizeof(long))

/* In a tail nobody uses some, and they may be left over from another life. */
static bool is_unused(unsigned long word)
{
	size_t offset = word % WORDS_PER_PAGE * sizeof(long);

	return word >= WORDS_PER_PAGE * sizeof(struct folio) / sizeof(struct page) &&
	       (offset == offsetof(struct folio, lru.prev) ||
		offset == offsetof(struct folio, index));
}

/* The first word that differs, if any. */
static void expect_unchanged(struct kunit *test, const unsigned long *before)
{
	struct split_file *f = test->priv;
	const unsigned long *now = (unsigned long *)f->head;
	unsigned long i, nr = f->nr * WORDS_PER_PAGE;

	for (i = 0; i < nr; i++)
		if (before[i] != now[i] && !is_unused(i))
			break;
	KUNIT_EXPECT_EQ_MSG(test, i, nr, "struct page %lu, word %lu: %lx, was %lx",
			    i / WORDS_PER_PAGE, i % WORDS_PER_PAGE,
			    i < nr ? now[i] : 0, i < nr ? before[i] : 0);
}

KUNIT_DEFINE_ACTION_WRAPPER(vfree_action, vfree, const void *);

static unsigned long *copy_struct_pages(struct kunit *test)
{
	struct split_file *f = test->priv;
	void *copy = vmalloc_array(f->nr, sizeof(struct page));

	KUNIT_ASSERT_NOT_NULL(test, copy);
	kunit_add_action(test, vfree_action, copy);
	return memcpy(copy, f->head, f->nr * sizeof(struct page));
}

/* A range in pages; what isn't positive is from the end. */
static const struct {
	long start, end;
} shapes[] = {
	{ 0, 1 }, { 1, 2 }, { 3, 4 }, { 0, 4 }, { 63, 64 }, { 64, 65 },
	{ -1, 0 }, { -64, 0 }, { 5, 9 }, { 63, 65 }, { 100, 300 }, { 1, -1 },
	{ 0, 256 }, { 0, -256 }, { 0, 0 },
};

static void split_merge_check(struct kunit *test, const unsigned long *before,
			      unsigned long start, unsigned long end)
{
	struct split_file *f = test->priv;

	KUNIT_EXPECT_EQ(test, split_pages(f, start, end), 0);
	KUNIT_EXPECT_FALSE(test, is_whole(f));
	check_pieces(test, start, end);

	KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, f->nr));
	KUNIT_EXPECT_TRUE(test, is_whole(f));
	check_pieces(test, 0, 0);
	expect_unchanged(test, before);
}

/* Each shape, and what merging leaves of it: nothing. */
static void test_shapes(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long *before = copy_struct_pages(test);
	int i;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		long start = shapes[i].start, end = shapes[i].end;

		start = start < 0 ? f->nr + start : start;
		end = end <= 0 ? f->nr + end : end;
		split_merge_check(test, before, start, end);
	}
}

static void test_random_shapes(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long *before = copy_struct_pages(test);
	struct rnd_state rnd;
	int i;

	prandom_seed_state(&rnd, 20261123);
	for (i = 0; i < 16; i++) {
		unsigned long start = prandom_u32_state(&rnd) % f->nr;
		unsigned long max = 1 + prandom_u32_state(&rnd) % (f->nr - start);

		split_merge_check(test, before, start,
				  start + 1 + prandom_u32_state(&rnd) % max);
	}
}

/* Pieces are split and merged like whole pages; a merge stays within its range. */
static void test_split_pieces(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long *before = copy_struct_pages(test);
	unsigned long half = f->nr / 2;

	KUNIT_EXPECT_EQ(test, split_pages(f, half, half + 1), 0);
	KUNIT_EXPECT_EQ(test, split_pages(f, half + 1, half + 4), 0);
	check_pieces(test, half, half + 4);

	KUNIT_EXPECT_EQ(test, split_pages(f, half - 4, half), 0);
	check_pieces(test, half - 4, half + 4);

	KUNIT_EXPECT_TRUE(test, merge_pages(f, half, half + 4));
	KUNIT_EXPECT_EQ(test, folio_order(page_folio(f->head + half)), 2);
	KUNIT_EXPECT_TRUE(test, merge_pages(f, half, f->nr));
	check_pieces(test, half - 4, half);
	KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, half));
	KUNIT_EXPECT_EQ(test, folio_nr_pages(page_folio(f->head)), half);
	KUNIT_EXPECT_FALSE(test, is_whole(f));
	KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, f->nr));
	expect_unchanged(test, before);
}

/* Somebody holds the page: it stays as it is. */
static void test_split_held(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long *before = copy_struct_pages(test);

	folio_get(page_folio(f->head));
	KUNIT_EXPECT_EQ(test, split_pages(f, 7, 8), -EAGAIN);
	folio_put(page_folio(f->head));

	KUNIT_EXPECT_TRUE(test, is_whole(f));
	check_pieces(test, 0, 0);
	expect_unchanged(test, before);
}

/* Somebody holds a piece: all others merge as if it were to stay split. */
static void test_merge_held(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long pos = f->nr / 2 + 77;
	struct page *page = f->head + pos;

	KUNIT_EXPECT_EQ(test, split_pages(f, 0, f->nr), 0);
	get_page(page);
	KUNIT_EXPECT_FALSE(test, merge_pages(f, 0, f->nr));
	put_page(page);
	check_pieces(test, pos, pos + 1);

	KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, f->nr));
	KUNIT_EXPECT_TRUE(test, is_whole(f));
}

static struct kunit_case cut_cases[] = {
	KUNIT_CASE(test_cut_all),
	KUNIT_CASE(test_cut_one_page),
	{ }
};

static struct kunit_suite cut_suite = {
	.name = "hugetlb_split_cut",
	.test_cases = cut_cases,
};

static struct kunit_case page_cases[] = {
	SPLIT_CASE_SLOW(test_shapes),
	SPLIT_CASE_SLOW(test_random_shapes),
	KUNIT_CASE_PARAM(test_split_pieces, split_page_sizes),
	KUNIT_CASE_PARAM(test_split_held, split_page_sizes),
	KUNIT_CASE_PARAM(test_merge_held, split_page_sizes),
	{ }
};

static struct kunit_suite page_suite = {
	.name = "hugetlb_split",
	.init = split_file_init,
	.exit = split_file_exit,
	.test_cases = page_cases,
};

kunit_test_suites(&cut_suite, &page_suite);
