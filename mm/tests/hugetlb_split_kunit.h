/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A file with one HugeTLB page of the pool in its page cache, for the tests of
 * mm/hugetlb_split.c.
 */
#ifndef _MM_TESTS_HUGETLB_SPLIT_KUNIT_H
#define _MM_TESTS_HUGETLB_SPLIT_KUNIT_H

#include <kunit/test.h>

#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/pagemap.h>

#include "../hugetlb_split.h"

/**
 * struct split_file - what a test has at its start
 * @h: the size of the page
 * @file: nobody else has it
 * @mapping: @file's page cache
 * @spool: @file's reservation of one page
 * @head: the first struct page
 * @index: where the page is in @mapping
 * @nr: its size in PAGE_SIZE units
 * @free: free pages of that size in the pool while @file has one
 */
struct split_file {
	struct hstate		*h;
	struct file		*file;
	struct address_space	*mapping;
	struct hugepage_subpool	*spool;
	struct page		*head;
	pgoff_t			index;
	unsigned long		nr;
	unsigned long		free;
};

const void *split_page_sizes(struct kunit *test, const void *prev, char *desc);
int split_file_init(struct kunit *test);
void split_file_exit(struct kunit *test);

/* With the invalidate_lock that they want; positions in the page, in pages. */
int split_pages(struct split_file *f, unsigned long start, unsigned long end);
bool merge_pages(struct split_file *f, unsigned long start, unsigned long end);
void get_usage(struct split_file *f, struct hugetlb_split_usage *usage);
void truncate_file(struct split_file *f);

/* A case for each size of pages that takes seconds. */
#define SPLIT_CASE_SLOW(test)						\
	KUNIT_CASE_PARAM_ATTR(test, split_page_sizes,			\
			      ((struct kunit_attributes){ .speed = KUNIT_SPEED_SLOW }))

static inline bool is_whole(struct split_file *f)
{
	return folio_test_hugetlb(page_folio(f->head));
}

/* Is the page back in the pool, now or soon? */
bool page_comes_home(struct split_file *f);

/*
 * Every struct page says what the page cache says, and everything but [start, end)
 * is as large as it can be.
 */
void check_pieces(struct kunit *test, unsigned long start, unsigned long end);

#endif /* _MM_TESTS_HUGETLB_SPLIT_KUNIT_H */
