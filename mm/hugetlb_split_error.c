// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory errors in HugeTLB pages of files whose pages may be split.
 *
 * Errors are recorded with the huge page, by memory_failure(), and stay with it when
 * it splits, when it merges and in the pool.  The page is split around each: what has
 * the error is lost, and everything else goes on.  A piece is marked as poisoned if
 * there is an error anywhere in it, which are many pages if there was no memory to
 * split it; it never merges with others.
 */
#include <linux/export.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "hugetlb_split.h"

/* Has one of the pages from @page on a memory error? */
bool hugetlb_split_poisoned(struct hugetlb_split *split, struct page *page,
			    unsigned long nr)
{
	unsigned long flags;
	bool poisoned;

	if (!folio_test_hwpoison(&split->whole))
		return false;

	spin_lock_irqsave(&hugetlb_lock, flags);
	poisoned = hugetlb_raw_hwpoison(&split->whole, page, nr);
	spin_unlock_irqrestore(&hugetlb_lock, flags);

	return poisoned;
}

/* The huge page may be whole, and may be about to be split or merged. */
static bool any_page_poisoned(unsigned long pfn)
{
	struct hugetlb_split *split;
	bool poisoned;

	guard(rcu)();
	/* Not folio_test_hwpoison(): a merge can make a tail of it at any time. */
	poisoned = READ_ONCE(page_folio(pfn_to_page(pfn))->flags.f) & __PG_HWPOISON;
	/*
	 * That may have been a healthy piece, made just now, of a page with errors.
	 * Pairs with hugetlb_split_begin().
	 */
	smp_rmb();
	split = hugetlb_split_find(pfn);
	return split ? folio_test_hwpoison(&split->whole) : poisoned;
}

static bool pages_poisoned(unsigned long pfn, unsigned long nr)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *whole;

	guard(spinlock_irqsave)(&hugetlb_lock);
	whole = hugetlb_split_whole(pfn) ?: page_folio(page);
	return folio_test_hugetlb(whole) && folio_test_hwpoison(whole) &&
	       hugetlb_raw_hwpoison(whole, page, nr);
}

/*
 * The page of a folio that the last error was in; NULL if that isn't known.  For a
 * whole huge page there is nobody but itself to ask.
 */
static struct page *last_error(struct folio *folio)
{
	struct page *page = NULL;
	struct folio *whole;

	spin_lock_irq(&hugetlb_lock);
	whole = hugetlb_split_whole(folio_pfn(folio)) ?: folio;
	if (!folio_test_hugetlb_raw_hwp_unreliable(whole))
		page = hugetlb_raw_hwpoison(whole, &folio->page, folio_nr_pages(folio));
	spin_unlock_irq(&hugetlb_lock);

	return page;
}

/**
 * hugetlb_split_hwpoison() - Take the page with the last memory error out of a folio.
 * @mapping: a file with HugeTLB pages in its page cache
 * @folio: a huge page, or a piece, in which memory_failure() has recorded the error
 *
 * The caller's reference to @folio becomes one to the folio that is returned.  That
 * is larger than the page if there is no memory for a split, or somebody else has a
 * reference, too, or it isn't known where errors are.
 *
 * Context: may sleep.  The caller holds @mapping's invalidate_lock for writing, and
 * @folio is in @mapping.
 * Return: the folio that has the error.
 */
struct folio *hugetlb_split_hwpoison(struct address_space *mapping, struct folio *folio)
{
	struct page *page = last_error(folio);
	pgoff_t index;

	if (!page)
		return folio;

	index = folio->index + folio_page_idx(folio, page);
	folio_put(folio);
	if (hugetlb_split_range(mapping, index, index + 1, NULL))
		pr_warn("%#lx: HugeTLB page not split around the memory error\n",
			page_to_pfn(page));

	/* In the page cache there is always one to be had. */
	folio = page_folio(page);
	folio_get(folio);
	return folio;
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_split_hwpoison, "kvm");

/**
 * hugetlb_split_page_poisoned() - Tell whether a page has a memory error.
 * @page: of a file whose HugeTLB pages may be split
 *
 * PG_hwpoison of a folio says that some page in it has one.
 *
 * Context: any but hard interrupts.  The page stays in the file.
 * Return: whether it has; true, too, if it isn't known which page of a folio has.
 */
bool hugetlb_split_page_poisoned(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);

	return any_page_poisoned(pfn) && pages_poisoned(pfn, 1);
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_split_page_poisoned, "kvm");

/**
 * hugetlb_split_healthy_order() - Tell how far a page is from a memory error.
 * @pfn: a page frame of a file whose HugeTLB pages may be split
 * @order: no more than this is asked for
 *
 * For those who use more of a huge page than a piece at a time.
 *
 * Context: any but hard interrupts.  The page stays in the file.  The result may be
 * out of date at once, unless who acts on it is told about errors.
 * Return: the order, at most @order, of the largest naturally aligned block around
 * @pfn without an error.  0 may have one.
 */
unsigned int hugetlb_split_healthy_order(unsigned long pfn, unsigned int order)
{
	if (!any_page_poisoned(pfn))
		return order;

	while (order && pages_poisoned(round_down(pfn, 1UL << order), 1UL << order))
		order--;
	return order;
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_split_healthy_order, "kvm");
