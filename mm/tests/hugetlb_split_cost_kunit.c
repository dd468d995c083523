// SPDX-License-Identifier: GPL-2.0-only
/*
 * What it costs to split a HugeTLB page: memory, which is counted and must not get
 * more, and time, which is told.
 */
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/xarray.h>

#include "hugetlb_split_kunit.h"

/* For one page that is taken out of a huge page with HVO, all included. */
#define MEMORY_BUDGET	SZ_64K
/* How many times longer it takes to split all of a 1G page, at least. */
#define TIME_BUDGET	30
#define ROUNDS		16

static unsigned long count_nodes(void *entry)
{
	unsigned long i, nr = 1;
	struct xa_node *node;

	/* What xa_is_node() asks, without the internals. */
	if (!entry || xa_is_value(entry) || !xa_is_internal(entry) ||
	    (unsigned long)entry <= 4096)
		return 0;

	node = (struct xa_node *)((unsigned long)entry - 2);
	for (i = 0; i < XA_CHUNK_SIZE; i++)
		nr += count_nodes(rcu_dereference_raw(node->slots[i]));
	return nr;
}

/* Bytes of kernel memory, struct pages that nobody shares included. */
static unsigned long count_memory(struct split_file *f)
{
	struct hugetlb_split_usage usage;
	unsigned long bytes;

	get_usage(f, &usage);
	bytes = usage.nr_vmemmap * PAGE_SIZE;
	bytes += count_nodes(rcu_dereference_raw(f->mapping->i_pages.xa_head)) *
		 sizeof(struct xa_node);
	/* Its nodes of the index of split pages it shares with others. */
	if (!is_whole(f))
		bytes += sizeof(struct hugetlb_split) + 3 * sizeof(struct xa_node);
	return bytes;
}

static bool has_hvo(struct split_file *f)
{
	return folio_test_hugetlb_vmemmap_optimized(page_folio(f->head));
}

static void test_memory(struct kunit *test)
{
	struct split_file *f = test->priv;
	unsigned long before = count_memory(f), held, pos, k, max;
	struct hugetlb_split_usage usage;
	bool hvo = has_hvo(f);

	KUNIT_ASSERT_EQ(test, split_pages(f, f->nr / 3, f->nr / 3 + 1), 0);
	get_usage(f, &usage);
	held = count_memory(f) - before;
	kunit_info(test, "one page taken out: %lu bytes more, %lu vmemmap pages, HVO %s",
		   held, usage.nr_vmemmap, hvo ? "on" : "off");
	KUNIT_EXPECT_LE(test, held, MEMORY_BUDGET);

	/* Scattered pages: no more than that each, nor than if all were split. */
	for (k = 1, pos = f->nr / 3; k <= 64; k++, pos = (pos + 12345) % f->nr) {
		KUNIT_ASSERT_EQ(test, split_pages(f, pos, pos + 1), 0);
		KUNIT_EXPECT_LE(test, count_memory(f) - before, k * MEMORY_BUDGET);
	}
	held = count_memory(f) - before;

	KUNIT_ASSERT_EQ(test, split_pages(f, 0, f->nr), 0);
	max = count_memory(f) - before;
	kunit_info(test, "64 pages: %lu bytes more; all: %lu", held, max);
	KUNIT_EXPECT_LE(test, held, max);
	KUNIT_EXPECT_LE(test, max, f->nr * sizeof(struct page) +
				   f->nr / 32 * sizeof(struct xa_node));

	KUNIT_EXPECT_TRUE(test, merge_pages(f, 0, f->nr));
	KUNIT_EXPECT_EQ(test, count_memory(f), before);
	KUNIT_EXPECT_EQ(test, has_hvo(f), hvo);
}

static void time_one(struct kunit *test, unsigned long start, unsigned long end,
		     u64 *split_ns, u64 *merge_ns)
{
	struct split_file *f = test->priv;
	u64 t0, t1, t2;

	t0 = ktime_get_ns();
	KUNIT_ASSERT_EQ(test, split_pages(f, start, end), 0);
	t1 = ktime_get_ns();
	KUNIT_ASSERT_TRUE(test, merge_pages(f, 0, f->nr));
	t2 = ktime_get_ns();

	*split_ns = min(*split_ns, t1 - t0);
	*merge_ns = min(*merge_ns, t2 - t1);
}

/* The best of some rounds, one and all in turns. */
static void test_time(struct kunit *test)
{
	struct split_file *f = test->priv;
	u64 split_one = U64_MAX, merge_one = U64_MAX;
	u64 split_all = U64_MAX, merge_all = U64_MAX;
	int i;

	for (i = 0; i < ROUNDS; i++)
		time_one(test, f->nr / 3, f->nr / 3 + 1, &split_one, &merge_one);
	for (i = 0; i < ROUNDS / 4; i++)
		time_one(test, 0, f->nr, &split_all, &merge_all);

	kunit_info(test, "split, us: one page %llu, all %llu (%llu times); HVO %s",
		   split_one / 1000, split_all / 1000, split_all / split_one,
		   has_hvo(f) ? "on" : "off");
	kunit_info(test, "merge, us: one page %llu, all %llu (%llu times)",
		   merge_one / 1000, merge_all / 1000, merge_all / merge_one);
	if (f->nr >= SZ_1G / PAGE_SIZE)
		KUNIT_EXPECT_LE(test, split_one * TIME_BUDGET, split_all);
}

static struct kunit_case cost_cases[] = {
	KUNIT_CASE_PARAM(test_memory, split_page_sizes),
	SPLIT_CASE_SLOW(test_time),
	{ }
};

static struct kunit_suite cost_suite = {
	.name = "hugetlb_split_cost",
	.init = split_file_init,
	.exit = split_file_exit,
	.test_cases = cost_cases,
};

kunit_test_suites(&cost_suite);
