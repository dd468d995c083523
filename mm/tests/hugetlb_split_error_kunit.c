// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of memory errors in HugeTLB pages that may be split: one page is lost each
 * time, it stays lost, and the pool is told.
 */
#include <linux/hugetlb_split.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "hugetlb_split_kunit.h"

static int fail_memory(struct split_file *f, unsigned long pos)
{
	return memory_failure(page_to_pfn(f->head + pos), MF_SW_SIMULATED);
}

static bool is_poisoned(struct split_file *f, unsigned long pos)
{
	return folio_test_hwpoison(page_folio(f->head + pos));
}

static unsigned int order_at(struct split_file *f, unsigned long pos)
{
	return folio_order(page_folio(f->head + pos));
}

static unsigned int healthy_order(struct split_file *f, unsigned long pos)
{
	return hugetlb_split_healthy_order(page_to_pfn(f->head + pos), huge_page_order(f->h));
}

static unsigned long count_folios(struct split_file *f)
{
	struct hugetlb_split_usage usage;
	unsigned long nr = 0;
	int order;

	get_usage(f, &usage);
	for (order = 0; order <= huge_page_order(f->h); order++)
		nr += usage.nr_folios[order];
	return nr;
}

/* It goes back to the pool with its errors, and is as good as new without. */
static void release_and_unpoison(struct kunit *test)
{
	struct split_file *f = test->priv;

	truncate_file(f);
	KUNIT_EXPECT_TRUE(test, page_comes_home(f));
	KUNIT_EXPECT_TRUE(test, is_whole(f));
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, 0));

	KUNIT_EXPECT_EQ(test, unpoison_memory(page_to_pfn(f->head)), 0);
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, 0));
}

/*
 * The first error hits the whole page, the second one a piece whose struct page is
 * read-only with HVO.  Both pages are taken out, and what is beside them stays as
 * large as it can be, then and after a merge.
 */
static void test_poison(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long first = 9, second = f->nr - 5;
	unsigned int order = huge_page_order(f->h);

	KUNIT_EXPECT_EQ(test, fail_memory(f, first), 0);
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, first));
	check_pieces(test, first, first + 1);

	KUNIT_EXPECT_EQ(test, fail_memory(f, second), 0);
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, second));
	KUNIT_EXPECT_EQ(test, order_at(f, first), 0);
	KUNIT_EXPECT_EQ(test, order_at(f, second), 0);
	/* One page out of each half. */
	KUNIT_EXPECT_EQ(test, count_folios(f), 2 * order);

	KUNIT_ASSERT_EQ(test, split_pages(f, 0, 64), 0);
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, first - 1));
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, first + 1));
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, second + 1));
	KUNIT_EXPECT_FALSE(test, merge_pages(f, 0, f->nr));
	KUNIT_EXPECT_EQ(test, count_folios(f), 2 * order);

	release_and_unpoison(test);
}

/* Who uses more than a piece at a time learns where errors are. */
static void test_healthy_order(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned int order = huge_page_order(f->h);

	KUNIT_EXPECT_EQ(test, healthy_order(f, 0), order);
	KUNIT_EXPECT_EQ(test, fail_memory(f, 9), 0);

	KUNIT_EXPECT_EQ(test, healthy_order(f, 9), 0);
	KUNIT_EXPECT_EQ(test, healthy_order(f, 8), 0);
	KUNIT_EXPECT_EQ(test, healthy_order(f, 10), 1);
	KUNIT_EXPECT_EQ(test, healthy_order(f, 0), 3);
	KUNIT_EXPECT_EQ(test, healthy_order(f, f->nr - 1), order - 1);

	release_and_unpoison(test);
}

/* The same page again, as madvise() does it: with a reference, which is dropped. */
static void test_poison_again(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long pos = f->nr / 2 + 3;

	KUNIT_EXPECT_EQ(test, fail_memory(f, pos), 0);
	get_page(f->head + pos);
	KUNIT_EXPECT_EQ(test, memory_failure(page_to_pfn(f->head + pos),
					     MF_SW_SIMULATED | MF_COUNT_INCREASED), -EHWPOISON);
	KUNIT_EXPECT_EQ(test, page_ref_count(f->head + pos), 1);
	/* It has been taken out of use already; what is beside it can't be. */
	KUNIT_EXPECT_EQ(test, soft_offline_page(page_to_pfn(f->head + pos), 0), 0);
	KUNIT_EXPECT_EQ(test, soft_offline_page(page_to_pfn(f->head + pos + 1), 0), -EIO);
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, pos + 1));

	release_and_unpoison(test);
}

/*
 * Somebody holds the page, so it can't be split, and is marked as a whole.  When it
 * is split later, only the piece with the error is.
 */
static void test_poison_held(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long pos = f->nr - 3;

	folio_get(page_folio(f->head));
	KUNIT_EXPECT_EQ(test, fail_memory(f, pos), 0);
	folio_put(page_folio(f->head));
	KUNIT_EXPECT_TRUE(test, is_whole(f));
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, 0));
	/* But it is known where the error is. */
	KUNIT_EXPECT_TRUE(test, hugetlb_split_page_poisoned(f->head + pos));
	KUNIT_EXPECT_FALSE(test, hugetlb_split_page_poisoned(f->head + pos - 1));
	KUNIT_EXPECT_EQ(test, healthy_order(f, 0), huge_page_order(f->h) - 1);
	KUNIT_EXPECT_EQ(test, healthy_order(f, pos), 0);

	KUNIT_ASSERT_EQ(test, split_pages(f, 0, 1), 0);
	KUNIT_EXPECT_TRUE(test, hugetlb_split_page_poisoned(f->head + pos));
	KUNIT_EXPECT_FALSE(test, hugetlb_split_page_poisoned(f->head + pos - 1));
	check_pieces(test, 0, 1);
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, 0));
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, f->nr / 4));
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, pos));
	KUNIT_EXPECT_EQ(test, order_at(f, pos), huge_page_order(f->h) - 1);

	KUNIT_ASSERT_EQ(test, split_pages(f, f->nr - 1, f->nr), 0);
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, f->nr - 1));
	KUNIT_EXPECT_FALSE(test, is_poisoned(f, f->nr - 2));
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, pos));
	KUNIT_EXPECT_EQ(test, order_at(f, pos), 1);

	release_and_unpoison(test);
}

/* The file is gone, and somebody else still holds the page. */
static void test_poison_parked(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long pos = f->nr / 2;

	KUNIT_ASSERT_EQ(test, split_pages(f, pos, pos + 1), 0);
	get_page(f->head + pos);
	truncate_file(f);
	KUNIT_EXPECT_EQ(test, fail_memory(f, pos), 0);
	KUNIT_EXPECT_EQ(test, unpoison_memory(page_to_pfn(f->head + pos)), -EBUSY);
	KUNIT_EXPECT_EQ(test, page_ref_count(f->head + pos), 1);
	put_page(f->head + pos);

	release_and_unpoison(test);
}

/*
 * The page is being split or merged, and that takes too long.  An error that nobody has
 * handled is neither counted nor recorded: it is no old one the next time.
 */
static void test_poison_frozen(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long pos = f->nr / 2;
	long nr_poisoned = atomic_long_read(&num_poisoned_pages);
	struct folio *folio = page_folio(f->head);

	KUNIT_ASSERT_TRUE(test, folio_ref_freeze(folio, f->nr));
	KUNIT_EXPECT_EQ(test, fail_memory(f, pos), -EBUSY);
	folio_ref_unfreeze(folio, f->nr);
	KUNIT_EXPECT_FALSE(test, hugetlb_split_page_poisoned(f->head + pos));

	KUNIT_ASSERT_EQ(test, split_pages(f, pos, pos + 1), 0);
	folio = page_folio(f->head + pos);
	KUNIT_ASSERT_TRUE(test, folio_ref_freeze(folio, 1));
	KUNIT_EXPECT_EQ(test, fail_memory(f, pos), -EBUSY);
	folio_ref_unfreeze(folio, 1);
	KUNIT_EXPECT_FALSE(test, hugetlb_split_page_poisoned(f->head + pos));
	KUNIT_EXPECT_EQ(test, atomic_long_read(&num_poisoned_pages), nr_poisoned);

	KUNIT_EXPECT_EQ(test, fail_memory(f, pos), 0);
	KUNIT_EXPECT_TRUE(test, is_poisoned(f, pos));
	KUNIT_EXPECT_EQ(test, atomic_long_read(&num_poisoned_pages), nr_poisoned + 1);
	release_and_unpoison(test);
}

/* Who brings a page into a file has its lock, and memory_failure() doesn't wait for it. */
static void test_poison_new(struct kunit *test)
{
	struct split_file *f = test->priv;
	struct folio *folio = page_folio(f->head);
	struct address_space *mapping = folio->mapping;

	folio_lock(folio);
	folio->mapping = NULL;
	KUNIT_EXPECT_EQ(test, fail_memory(f, f->nr / 2), -EBUSY);
	folio->mapping = mapping;
	folio_unlock(folio);

	KUNIT_EXPECT_TRUE(test, hugetlb_split_page_poisoned(f->head + f->nr / 2));
	release_and_unpoison(test);
}

static struct kunit_case error_cases[] = {
	KUNIT_CASE_PARAM(test_poison, split_page_sizes),
	KUNIT_CASE_PARAM(test_healthy_order, split_page_sizes),
	KUNIT_CASE_PARAM(test_poison_again, split_page_sizes),
	KUNIT_CASE_PARAM(test_poison_held, split_page_sizes),
	KUNIT_CASE_PARAM(test_poison_parked, split_page_sizes),
	KUNIT_CASE_PARAM(test_poison_frozen, split_page_sizes),
	KUNIT_CASE_PARAM(test_poison_new, split_page_sizes),
	{ }
};

static struct kunit_suite error_suite = {
	.name = "hugetlb_split_error",
	.init = split_file_init,
	.exit = split_file_exit,
	.test_cases = error_cases,
};

kunit_test_suites(&error_suite);
