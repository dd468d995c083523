// SPDX-License-Identifier: GPL-2.0-only
/*
 * The file that the tests of mm/hugetlb_split.c work on, and what must hold for it.
 */
#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/hugetlb_reserve.h>
#include <linux/hugetlb_split.h>
#include <linux/mm.h>
#include <linux/mmdebug.h>
#include <linux/pgtable.h>
#include <linux/sizes.h>

#include "hugetlb_split_kunit.h"

/* Any but the first, so that an index isn't a position. */
#define HUGE_INDEX	3

static const unsigned long sizes[] = { SZ_2M, SZ_1G };

const void *split_page_sizes(struct kunit *test, const void *prev, char *desc)
{
	const unsigned long *size = prev ? (const unsigned long *)prev + 1 : sizes;

	if (size == sizes + ARRAY_SIZE(sizes))
		return NULL;

	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s", *size == SZ_2M ? "2M" : "1G");
	return size;
}

static const struct file_operations split_fops = { };

/* What a user of pieces does about a memory error, but for users of its own. */
static int split_error_folio(struct address_space *mapping, struct folio *folio)
{
	folio_unlock(folio);
	filemap_invalidate_lock(mapping);
	if (folio->mapping == mapping)
		folio = hugetlb_split_hwpoison(mapping, folio);
	filemap_invalidate_unlock(mapping);
	folio_lock(folio);
	return 0;
}

static const struct address_space_operations split_aops = {
	.dirty_folio		= noop_dirty_folio,
	.error_remove_folio	= split_error_folio,
};

static struct folio *allocate_page(struct split_file *f)
{
	struct folio *folio;

	filemap_invalidate_lock_shared(f->mapping);
	folio = hugetlb_get_reserved_folio(f->mapping, f->index, f->spool, NULL);
	filemap_invalidate_unlock_shared(f->mapping);
	return folio;
}

int split_file_init(struct kunit *test)
{
	const unsigned long *size = test->param_value;
	struct split_file *f;
	struct folio *folio;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);

	f->h = size_to_hstate(*size);
	if (!f->h)
		kunit_skip(test, "no huge pages of %lu KiB", *size / SZ_1K);
	f->spool = hugetlb_reserve_subpool(f->h, 1);
	if (IS_ERR(f->spool))
		kunit_skip(test, "no free huge page of %lu KiB", *size / SZ_1K);

	f->file = anon_inode_create_getfile("[hugetlb_split]", &split_fops, NULL,
					    O_RDWR, NULL);
	KUNIT_ASSERT_FALSE(test, IS_ERR(f->file));
	f->mapping = f->file->f_mapping;
	f->mapping->a_ops = &split_aops;
	mapping_set_hugetlb_split(f->mapping);
	f->nr = pages_per_huge_page(f->h);
	f->index = HUGE_INDEX * f->nr;

	folio = allocate_page(f);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	f->head = &folio->page;
	f->free = f->h->free_huge_pages;
	folio_unlock(folio);
	folio_put(folio);

	test->priv = f;
	return 0;
}

void truncate_file(struct split_file *f)
{
	filemap_invalidate_lock(f->mapping);
	truncate_inode_pages(f->mapping, 0);
	filemap_invalidate_unlock(f->mapping);
}

bool page_comes_home(struct split_file *f)
{
	int tries = 500;

	while (READ_ONCE(f->h->free_huge_pages) != f->free + 1 && --tries)
		msleep(20);
	return tries;
}

void split_file_exit(struct kunit *test)
{
	struct split_file *f = test->priv;

	if (!f)
		return;

	truncate_file(f);
	KUNIT_EXPECT_TRUE(test, page_comes_home(f));
	KUNIT_EXPECT_EQ(test, f->mapping->nrpages, 0);
	hugepage_put_subpool(f->spool);
	fput(f->file);
}

int split_pages(struct split_file *f, unsigned long start, unsigned long end)
{
	int err;

	filemap_invalidate_lock(f->mapping);
	err = hugetlb_split_range(f->mapping, f->index + start, f->index + end, NULL);
	filemap_invalidate_unlock(f->mapping);
	return err;
}

bool merge_pages(struct split_file *f, unsigned long start, unsigned long end)
{
	bool all;

	filemap_invalidate_lock(f->mapping);
	all = hugetlb_merge_range(f->mapping, f->index + start, f->index + end);
	filemap_invalidate_unlock(f->mapping);
	return all;
}

void get_usage(struct split_file *f, struct hugetlb_split_usage *usage)
{
	filemap_invalidate_lock_shared(f->mapping);
	hugetlb_split_usage(f->mapping, f->index, f->index + f->nr, usage);
	filemap_invalidate_unlock_shared(f->mapping);
}

/* HVO maps by PTEs, and writable what isn't shared. */
static unsigned long count_writable_vmemmap(struct split_file *f)
{
	unsigned long addr = (unsigned long)f->head, nr = 0;
	unsigned long end = (unsigned long)(f->head + f->nr);

	for (; addr < end; addr += PAGE_SIZE)
		nr += !!pte_write(ptep_get(virt_to_kpte(addr)));
	return nr;
}

static void check_vmemmap(struct kunit *test)
{
	struct split_file *f = test->priv;
	struct hugetlb_split *split = hugetlb_split_find(page_to_pfn(f->head));
	struct folio *whole = split ? &split->whole : page_folio(f->head);
	struct hugetlb_split_usage usage;

	get_usage(f, &usage);
	if (folio_test_hugetlb_vmemmap_optimized(whole))
		KUNIT_EXPECT_EQ(test, usage.nr_vmemmap, count_writable_vmemmap(f));
	else
		KUNIT_EXPECT_EQ(test, usage.nr_vmemmap, f->nr * sizeof(struct page) / PAGE_SIZE);
}

static bool pages_are_right(struct folio *folio)
{
	unsigned long i, nr = folio_nr_pages(folio);
	bool right = page_ref_count(&folio->page) == nr;

	for (i = 0; i < nr; i++) {
		struct page *page = folio_page(folio, i);

		right &= compound_head(page) == &folio->page;
		right &= PageTail(page) == (i != 0);
		if (i)
			right &= !page_ref_count(page);
		if (i || nr == 1)
			right &= atomic_read(&page->_mapcount) == -1;
	}
	return right;
}

/* What could be larger could do without the other half of a block twice its size. */
static bool order_is_right(struct split_file *f, struct folio *folio,
			   unsigned long pos, unsigned long start, unsigned long end)
{
	unsigned long nr = folio_nr_pages(folio);
	unsigned long parent = round_down(pos, 2 * nr);

	if (pos + nr > start && pos < end)
		return nr == 1;

	return nr == f->nr || (parent < end && parent + 2 * nr > start);
}

static bool piece_is_right(struct split_file *f, struct folio *folio, unsigned long pos)
{
	unsigned long nr = folio_nr_pages(folio);
	bool whole = nr == f->nr;

	return &folio->page == f->head + pos && IS_ALIGNED(pos, nr) &&
	       folio->index == f->index + pos && folio->mapping == f->mapping &&
	       folio_test_hugetlb(folio) == whole &&
	       folio_test_hugetlb_piece(folio) == (nr > 1 && !whole) &&
	       folio_test_uptodate(folio) && folio_test_dirty(folio) &&
	       !folio_test_locked(folio) && !folio_mapped(folio);
}

/* Without expectations per page: there may be 262144 of them. */
void check_pieces(struct kunit *test, unsigned long start, unsigned long end)
{
	struct split_file *f = test->priv;
	unsigned long pos = 0;

	while (pos < f->nr) {
		struct folio *folio = xa_load(&f->mapping->i_pages, f->index + pos);

		KUNIT_ASSERT_NOT_NULL(test, folio);
		if (!piece_is_right(f, folio, pos) || !pages_are_right(folio) ||
		    !order_is_right(f, folio, pos, start, end)) {
			dump_page(&folio->page, "wrong piece");
			KUNIT_FAIL_AND_ABORT(test, "page %lu, order %u", pos, folio_order(folio));
		}
		pos += folio_nr_pages(folio);
	}

	KUNIT_EXPECT_EQ(test, f->mapping->nrpages, f->nr);
	check_vmemmap(test);
}
