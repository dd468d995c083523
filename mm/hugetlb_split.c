// SPDX-License-Identifier: GPL-2.0-only
/*
 * HugeTLB pages that are split into pieces while a file uses them.
 *
 * Some files need a few pages of a huge page one by one: to map them, to pin them,
 * to let others do I/O on them.  A huge page in their page cache splits around
 * these, like a block of the buddy allocator does, and what is left stays as large
 * as it can be.  A 2M page after page 300 was taken out::
 *
 *    page     0                256   288 296 300 301 302 304   320     384     512
 *    order    |       8        |  5  | 3 | 2 | 0 | 0 | 1 |  4  |   6   |   7   |
 *    vmemmap  |own|T8 |T8 |T8  |             own               |  own  |own|T7 |
 *
 * Each vmemmap page holds 64 struct pages.  With HVO a piece of order 7 or more has
 * the first to itself, and all its others are T, the zone's read-only page for tails
 * of that order, exactly as for a whole huge page.  Of smaller pieces one or more
 * have a vmemmap page to themselves.  A 1G page with one page taken out is 18 more
 * pieces and up to 13 vmemmap pages, of which HVO had left one; without HVO it takes
 * 4096.  mm/hugetlb_split_pages.c does this.
 *
 * A piece is a folio, but neither a HugeTLB folio (it has no hstate) nor one that
 * others could split, migrate or reclaim: it is on no LRU list, and no memory
 * cgroup is charged for it.  For them there is one huge page in use, all the
 * time; mm/hugetlb_split_whole.c keeps what says so.  Pieces have the page type
 * PGTY_hugetlb_piece, except those of order 0 while they are in the page cache:
 * these may be mapped by users, which takes the place of the type.
 *
 * Pieces become one again when the user of the file says that they may, as far as
 * nobody holds a reference; a page whose pieces are all one is a HugeTLB page like
 * before.  Pieces that leave the page cache come home when their last reference is
 * dropped, in any context, and the page returns to the pool with the last of them.
 *
 * Splitting needs memory and can fail; merging doesn't, and can be tried again.
 *
 * Locks: the mapping's invalidate_lock is held for writing and keeps pieces in the
 * page cache and as they are.  Folio locks are not taken: who has one has a
 * reference, too, and a piece changes only while nobody but the page cache has any.
 * Within it hugetlb_lock, and the lock of the page cache, each on its own.
 */
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/preempt.h>
#include <linux/sched/signal.h>
#include <linux/vmstat.h>
#include <linux/xarray.h>

#include "hugetlb_split.h"

#define CREATE_TRACE_POINTS
#include <trace/events/hugetlb_split.h>

/*
 * The page cache makes whoever looks up a folio spin while it is being changed, and
 * preemption is off.  So no more than this many pieces are made or joined at a time,
 * besides those at the edges; what is larger goes by pieces of this many pages.  How
 * many struct pages a piece has matters only without HVO: then all are written.
 */
#define STEP_ORDER	9
#define STEP_NR		BIT(STEP_ORDER)

/* How often to look whether a reference is gone, and how long to wait between. */
#define FREEZE_TRIES	50
#define FREEZE_WAIT_US	100

static struct folio *find_folio(struct address_space *mapping, pgoff_t index)
{
	/* Nobody can remove it. */
	lockdep_assert_held(&mapping->invalidate_lock);

	return xa_load(&mapping->i_pages, index);
}

/* The first folio in [*@index, @end), and where it starts in there. */
static struct folio *find_next_folio(struct address_space *mapping, pgoff_t *index,
				     pgoff_t end)
{
	return xa_find(&mapping->i_pages, index, end - 1, XA_PRESENT);
}

/* From here to thaw_folio() nobody can get a reference. */
static bool freeze_folio(struct folio *folio)
{
	if (WARN_ON_ONCE(!folio->mapping))
		return false;

	return folio_ref_freeze(folio, folio_nr_pages(folio));
}

static void thaw_folio(struct folio *folio)
{
	folio_ref_unfreeze(folio, folio_nr_pages(folio));
}

/*
 * Freeze a folio with preemption disabled.  Those who come across a page by its PFN
 * take a reference for a moment.
 */
static bool freeze_folio_wait(struct folio *folio)
{
	int tries = FREEZE_TRIES;

	do {
		preempt_disable();
		if (freeze_folio(folio))
			return true;
		preempt_enable();
		usleep_range(FREEZE_WAIT_US, 2 * FREEZE_WAIT_US);
	} while (--tries);

	return false;
}

static void thaw_pieces(struct folio *folio, const struct hugetlb_cut *cut)
{
	unsigned int order;
	unsigned long pos;

	for_each_hugetlb_piece(cut, pos, order)
		folio_ref_unfreeze((struct folio *)folio_page(folio, pos), 1 << order);
}

/* Everything that can fail comes first, and is undone when something did. */
static int cut_folio(struct address_space *mapping, struct folio *folio,
		     const struct hugetlb_cut *cut)
{
	struct hugetlb_split *split;
	int err;

	split = hugetlb_split_prepare(folio);
	if (IS_ERR(split))
		return PTR_ERR(split);

	err = hugetlb_prepare_pieces(folio, cut);
	if (err)
		goto err_split;

	err = hugetlb_split_entries(mapping, folio, cut);
	if (err)
		goto err_pieces;

	if (!freeze_folio_wait(folio)) {
		err = -EAGAIN;
		goto err_entries;
	}

	if (folio_test_hugetlb(folio)) {
		hugetlb_split_begin(split);
		count_vm_event(HTLB_SPLIT);
	}
	hugetlb_make_pieces(folio, cut);
	hugetlb_store_pieces(mapping, folio, cut);
	thaw_pieces(folio, cut);
	preempt_enable();
	trace_hugetlb_split(folio_pfn(folio), cut->nr, cut->start, cut->end);
	return 0;

err_entries:
	hugetlb_join_entries(mapping, folio);
err_pieces:
	hugetlb_share_tails(folio);
err_split:
	hugetlb_split_unprepare(split);
	return err;
}

/**
 * hugetlb_split_range() - Split huge pages and pieces down to single pages.
 * @mapping: a file with HugeTLB pages in its page cache
 * @start: first index, in PAGE_SIZE units
 * @end: index after the last
 * @err_index: where it failed, if it did; may be NULL
 *
 * Everything in the range becomes folios of order 0, and what is beside it stays
 * as large as possible.  Nothing of the range is mapped by users, unless it is of
 * order 0.  Indices without a folio are skipped.
 *
 * Context: may sleep.  The caller holds @mapping's invalidate_lock for writing.
 * Return: 0; -ENOMEM; -EINTR if the task is going to die; or -EAGAIN if somebody holds
 * a reference to something larger than order 0 for more than an instant.  After an
 * error the pieces may be smaller than they were; hugetlb_merge_range() helps.
 */
int hugetlb_split_range(struct address_space *mapping, pgoff_t start, pgoff_t end,
			pgoff_t *err_index)
{
	pgoff_t index = start;
	struct folio *folio;

	lockdep_assert_held_write(&mapping->invalidate_lock);
	if (WARN_ON_ONCE(!mapping_hugetlb_split(mapping)))
		return -EINVAL;

	while (index < end && (folio = find_next_folio(mapping, &index, end))) {
		struct hugetlb_cut cut;
		int err;

		if (!folio_test_large(folio)) {
			index++;
			continue;
		}

		cut.nr = folio_nr_pages(folio);
		cut.start = index - folio->index;
		cut.end = min(end - folio->index, cut.nr);
		cut.order = cut.end - cut.start <= STEP_NR ? 0 : STEP_ORDER;

		err = fatal_signal_pending(current) ? -EINTR : cut_folio(mapping, folio, &cut);
		if (err) {
			if (err_index)
				*err_index = index;
			return err;
		}
		cond_resched();
	}
	return 0;
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_split_range, "kvm");

/* The piece that starts where @folio, which may be frozen, ends. */
static struct folio *next_piece(struct folio *folio)
{
	return (struct folio *)folio_page(folio, folio_nr_pages(folio));
}

static void thaw_range(struct folio *folio, struct folio *end)
{
	for (; folio < end; folio = next_piece(folio))
		thaw_folio(folio);
}

/*
 * Freeze all pieces of a block, with preemption disabled.  Fails if somebody has a
 * reference to one, and if they are too many to be joined at a time.
 */
static int freeze_range(struct folio *first, struct folio *end)
{
	unsigned long nr = 0;
	struct folio *folio;

	for (folio = first; folio < end; folio = next_piece(folio))
		if (++nr > 2 * STEP_NR)
			return -E2BIG;

	preempt_disable();
	for (folio = first; folio < end; folio = next_piece(folio)) {
		if (!freeze_folio(folio))
			goto err_thaw;
		hugetlb_piece_clear_mlocked(folio);
	}
	return 0;

err_thaw:
	thaw_range(first, folio);
	preempt_enable();
	return -EAGAIN;
}

/**
 * struct merge - what hugetlb_merge_range() is about
 * @mapping: the file
 * @unshared: are there tails now that HVO could share?
 */
struct merge {
	struct address_space	*mapping;
	bool			unshared;
};

/* Join all pieces of a naturally aligned block, or change nothing. */
static int join_block(struct merge *merge, struct folio *folio, unsigned int order)
{
	struct hugetlb_split *split = hugetlb_split_find(folio_pfn(folio));
	struct folio *end = (struct folio *)folio_page(folio, 1UL << order);
	int err;

	err = freeze_range(folio, end);
	if (err)
		return err;

	if (hugetlb_split_poisoned(split, &folio->page, 1UL << order)) {
		thaw_range(folio, end);
		preempt_enable();
		return -EHWPOISON;
	}

	hugetlb_join_pieces(folio, order);
	if (order >= VMEMMAP_TAIL_MIN_ORDER)
		merge->unshared |= hugetlb_piece_has_hvo(folio);
	if (order == folio_order(&split->whole)) {
		hugetlb_split_end(split);
		count_vm_event(HTLB_MERGE);
	}
	hugetlb_join_entries(merge->mapping, folio);
	thaw_folio(folio);
	preempt_enable();
	trace_hugetlb_merge(folio_pfn(folio), order);
	return 0;
}

/*
 * Merge a naturally aligned block: at once, or by steps if that is too much for
 * once, or as much of it as is possible.
 */
static bool merge_block(struct merge *merge, pgoff_t index, unsigned int order)
{
	struct folio *folio = find_folio(merge->mapping, index);
	pgoff_t i, half = (1UL << order) / 2;
	int err;

	if (!folio || folio_order(folio) >= order)
		return folio;

	err = join_block(merge, folio, order);
	if (err == -E2BIG) {
		for (i = index; i < index + 2 * half; i += STEP_NR) {
			merge_block(merge, i, STEP_ORDER);
			cond_resched();
		}
		err = join_block(merge, folio, order);
	}
	if (!err)
		return true;

	merge_block(merge, index, order - 1);
	merge_block(merge, index + half, order - 1);
	return false;
}

/* Merge what is in [start, end) of one huge page. */
static bool merge_pieces(struct merge *merge, pgoff_t start, pgoff_t end)
{
	unsigned int order;
	bool all = true;
	pgoff_t index;

	for (index = start; index < end; index += 1UL << order) {
		order = ilog2(end - index);
		if (index)
			order = min_t(unsigned int, order, __ffs(index));
		all &= merge_block(merge, index, order);
	}
	return all;
}

/* Let HVO have the tails of what has been merged. */
static void share_tails(struct address_space *mapping, pgoff_t start, pgoff_t end)
{
	pgoff_t index = start;
	struct folio *folio;

	/* For those who saw a reference count where there is none any more. */
	synchronize_rcu_expedited();

	while (index < end && (folio = find_next_folio(mapping, &index, end))) {
		hugetlb_share_tails(folio);
		index = folio_next_index(folio);
		cond_resched();
	}
}

/**
 * hugetlb_merge_range() - Merge pieces as far as possible.
 * @mapping: a file with HugeTLB pages in its page cache
 * @start: first index, in PAGE_SIZE units
 * @end: index after the last
 *
 * Pieces that lie in the range become the largest naturally aligned ones that fit
 * into it, or the whole huge page, which is a HugeTLB folio again then.  Those that
 * somebody holds, has locked or has mapped, and those with memory errors, stay what
 * they are, and so do larger pieces that reach beyond the range.
 *
 * Context: may sleep.  The caller holds @mapping's invalidate_lock for writing.
 * Return: true if everything is as large as the range allows.
 */
bool hugetlb_merge_range(struct address_space *mapping, pgoff_t start, pgoff_t end)
{
	struct merge merge = { .mapping = mapping };
	pgoff_t index = start;
	struct folio *folio;
	bool all = true;

	lockdep_assert_held_write(&mapping->invalidate_lock);

	while (index < end && (folio = find_next_folio(mapping, &index, end))) {
		pgoff_t next;

		if (folio_test_hugetlb(folio)) {
			index = folio_next_index(folio);
			continue;
		}

		next = round_up(index + 1, 1UL << hugetlb_piece_whole_order(folio));
		next = min(next, end);
		all &= merge_pieces(&merge, index, next);
		index = next;
		cond_resched();
	}

	if (merge.unshared)
		share_tails(mapping, start, end);
	return all;
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_merge_range, "kvm");

/* A vmemmap page of several pieces counts as the first one's. */
static unsigned long piece_nr_vmemmap(struct folio *folio)
{
	unsigned long nr = folio_nr_pages(folio) * sizeof(struct page);
	unsigned long start = (unsigned long)folio;

	if (hugetlb_piece_has_hvo(folio))
		return PAGE_ALIGNED(start);

	return (PAGE_ALIGN(start + nr) - PAGE_ALIGN(start)) / PAGE_SIZE;
}

/**
 * hugetlb_split_usage() - Tell what a range of a file consists of.
 * @mapping: a file with HugeTLB pages in its page cache
 * @start: first index, in PAGE_SIZE units, at the start of a huge page
 * @end: index after the last, at the end of a huge page
 * @usage: the answer
 *
 * Context: may sleep.  The caller holds @mapping's invalidate_lock.
 */
void hugetlb_split_usage(struct address_space *mapping, pgoff_t start,
			 pgoff_t end, struct hugetlb_split_usage *usage)
{
	struct folio *folio;
	unsigned long index = start;

	lockdep_assert_held(&mapping->invalidate_lock);

	memset(usage, 0, sizeof(*usage));
	for (folio = xa_find(&mapping->i_pages, &index, end - 1, XA_PRESENT); folio;
	     folio = xa_find_after(&mapping->i_pages, &index, end - 1, XA_PRESENT)) {
		usage->nr_folios[folio_order(folio)]++;
		usage->nr_vmemmap += piece_nr_vmemmap(folio);
		cond_resched();
	}
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_split_usage, "kvm");
