// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of what happens to a HugeTLB page while it is split: its pieces are held
 * beyond the life of their file, looked at by others, and short of memory.
 */
#include <linux/completion.h>
#include <linux/folio_batch.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/prandom.h>
#include <linux/sched.h>

#include "hugetlb_split_kunit.h"

/* For PFN walkers to meet it in all its states. */
#define HAMMER_SECONDS	3

static bool has_come_home(struct split_file *f)
{
	return READ_ONCE(f->h->free_huge_pages) == f->free + 1;
}

/* The ways of the last reference to a page. */
static void put_by_page(struct page *page)
{
	put_page(page);
}

static void put_by_folio(struct page *page)
{
	folio_put(page_folio(page));
}

static void put_by_batch(struct page *page)
{
	struct folio_batch batch;

	folio_batch_init(&batch);
	folio_batch_add(&batch, page_folio(page));
	folios_put(&batch);
}

static void put_atomically(struct page *page)
{
	unsigned long flags;

	local_irq_save(flags);
	put_page(page);
	local_irq_restore(flags);
}

static void (*const puts[])(struct page *) = {
	put_by_page, put_by_folio, put_by_batch, put_atomically,
};

/* The file is gone, small and large pieces are held, and dropped one by one. */
static void test_late_release(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long pos[] = { 0, 1, f->nr / 2, f->nr / 2 + 3, f->nr - 1 };
	int i;

	KUNIT_ASSERT_EQ(test, split_pages(f, f->nr / 2, f->nr / 2 + 4), 0);
	KUNIT_ASSERT_EQ(test, split_pages(f, 0, 1), 0);
	for (i = 0; i < ARRAY_SIZE(pos); i++)
		get_page(f->head + pos[i]);

	truncate_file(f);
	KUNIT_EXPECT_EQ(test, f->mapping->nrpages, 0);
	for (i = 0; i < ARRAY_SIZE(pos); i++) {
		KUNIT_EXPECT_TRUE(test, folio_test_hugetlb_piece(page_folio(f->head + pos[i])));
		KUNIT_EXPECT_FALSE(test, has_come_home(f));
		puts[i % ARRAY_SIZE(puts)](f->head + pos[i]);
	}
	KUNIT_EXPECT_TRUE(test, page_comes_home(f));
}

/* Everything is truncated while it is in pieces, and nobody holds any. */
static void test_truncate_pieces(struct kunit *test)
{
	struct split_file *f = test->priv;

	KUNIT_ASSERT_EQ(test, split_pages(f, 0, f->nr), 0);
	truncate_file(f);
	KUNIT_EXPECT_TRUE(test, page_comes_home(f));
	KUNIT_EXPECT_TRUE(test, is_whole(f));
}

/* As little trust as possible in what it sees: it may be any state. */
static int hammer(void *data)
{
	struct split_file *f = data;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, (unsigned long)current);
	while (!kthread_should_stop()) {
		struct page *page = f->head + prandom_u32_state(&rnd) % f->nr;
		struct folio *folio = page_folio(page);

		if (folio_try_get(folio)) {
			WARN_ON(page_folio(page) == folio &&
				!folio_test_hugetlb(folio) && !folio->mapping);
			folio_put(folio);
		}
		cond_resched();
	}
	return 0;
}

/* Nobody can take a page away while a file uses it, whole or in pieces. */
static void try_soft_offline(struct kunit *test, unsigned long pos)
{
	struct split_file *f = test->priv;

	if (IS_ENABLED(CONFIG_MEMORY_FAILURE))
		KUNIT_EXPECT_LT(test, soft_offline_page(page_to_pfn(f->head + pos), 0), 0);
}

/*
 * Split and merge while others take references to random pages all the time.  What
 * they hold for an instant may keep something from merging, but not for long.
 */
static void test_hammer(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long end = jiffies + HAMMER_SECONDS * HZ;
	unsigned long splits = 0, busy = 0, merges = 0;
	struct task_struct *task;
	struct rnd_state rnd;

	task = kthread_run(hammer, f, "hugetlb_split");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	prandom_seed_state(&rnd, 4711);

	while (time_before(jiffies, end)) {
		unsigned long start = prandom_u32_state(&rnd) % f->nr;
		unsigned long nr = 1 + prandom_u32_state(&rnd) % (f->nr - start);
		int err = split_pages(f, start, start + min(nr, 1UL << (splits % 10)));

		KUNIT_EXPECT_TRUE(test, !err || err == -EAGAIN);
		if (splits % 64 == 0)
			try_soft_offline(test, start);
		splits += !err;
		busy += !!err;
		merges += merge_pages(f, 0, f->nr);
	}
	kthread_stop(task);

	kunit_info(test, "%lu splits, %lu times busy, %lu merges at once", splits, busy, merges);
	KUNIT_EXPECT_GT(test, splits, 10);
	KUNIT_EXPECT_GT(test, merges, 5);
	KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, f->nr));
	check_pieces(test, 0, 0);
}

#ifdef CONFIG_FAULT_INJECTION
/* Split one page out; the @nth allocation fails, or none if that is 0. */
static int split_with_failure(struct split_file *f, int nth)
{
	current->fail_nth = nth;
	return split_pages(f, f->nr / 2 + 11, f->nr / 2 + 12);
}

/*
 * Each allocation of a split fails once.  That doesn't change anything, and the same
 * again without a failure works.  Needs fault injection to be switched on for slab
 * and page allocations that may sleep.
 */
static void test_enomem(struct kunit *test)
{
	struct split_file *f = test->priv;
	int nth = 0, failed = 0, left, err;

	do {
		err = split_with_failure(f, ++nth);
		left = current->fail_nth;
		current->fail_nth = 0;

		KUNIT_EXPECT_TRUE(test, !err || err == -ENOMEM);
		if (err) {
			failed++;
			KUNIT_EXPECT_TRUE(test, is_whole(f));
			check_pieces(test, 0, 0);
			KUNIT_EXPECT_EQ(test, split_with_failure(f, 0), 0);
		}
		check_pieces(test, f->nr / 2 + 11, f->nr / 2 + 12);
		KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, f->nr));
	} while (!left && nth < 1000);

	kunit_info(test, "%d allocations, %d of them fatal", nth - 1, failed);
	if (!failed)
		kunit_skip(test, "no failures injected, see ignore-gfp-wait in debugfs");
}
#else
static void test_enomem(struct kunit *test)
{
	kunit_skip(test, "CONFIG_FAULT_INJECTION is off");
}
#endif

static struct kunit_case life_cases[] = {
	KUNIT_CASE_PARAM(test_late_release, split_page_sizes),
	KUNIT_CASE_PARAM(test_truncate_pieces, split_page_sizes),
	SPLIT_CASE_SLOW(test_hammer),
	KUNIT_CASE_PARAM(test_enomem, split_page_sizes),
	{ }
};

static struct kunit_suite life_suite = {
	.name = "hugetlb_split_life",
	.init = split_file_init,
	.exit = split_file_exit,
	.test_cases = life_cases,
};

kunit_test_suites(&life_suite);
