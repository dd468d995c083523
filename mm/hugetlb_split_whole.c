// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stays of a HugeTLB page while it is split, and how it becomes whole again.
 *
 * A huge page keeps its subpool, its cgroups, its charge and its flags in its first
 * struct pages, which belong to the first pieces once it is split.  So these struct
 * pages are copied when that begins and copied back when it ends.  The copy is what
 * the pool and the cgroups see of the page in between.
 *
 * Pieces come home when their last reference goes away, from wherever that happens,
 * and wait with a reference count of zero for the others.  The last one to come
 * makes the page whole, and frees it to the pool like any other huge page.
 */
#include <linux/hugetlb.h>
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <trace/events/hugetlb_split.h>

#include "hugetlb_split.h"
#include "hugetlb_vmemmap.h"

/*
 * All split pages, by PFN.  An entry says that the page is split: it is stored and
 * erased together with the page's type, under hugetlb_lock.
 */
static DEFINE_XARRAY_FLAGS(hugetlb_splits, XA_FLAGS_LOCK_IRQ);

/* An entry can be replaced at any time, as the place for it is there. */
static int store_split(struct hugetlb_split *split, void *entry)
{
	XA_STATE_ORDER(xas, &hugetlb_splits, page_to_pfn(split->head),
		       folio_order(&split->whole));
	unsigned long flags;

	do {
		xas_lock_irqsave(&xas, flags);
		xas_store(&xas, entry);
		xas_unlock_irqrestore(&xas, flags);
	} while (xas_nomem(&xas, GFP_KERNEL));

	return xas_error(&xas);
}

/**
 * hugetlb_split_find() - Find what a page frame is a piece of.
 * @pfn: any page frame
 *
 * Context: any.  The caller knows that a piece is not home yet, or holds
 * hugetlb_lock, or doesn't look into it, or in an RCU read-side critical section
 * at nothing but flags.
 * Return: the split page, or NULL.
 */
struct hugetlb_split *hugetlb_split_find(unsigned long pfn)
{
	return xa_load(&hugetlb_splits, pfn);
}

/**
 * hugetlb_split_whole() - Find who keeps track of a page frame's memory errors.
 * @pfn: any page frame
 *
 * Context: holds hugetlb_lock.
 * Return: what stands in for the huge page that @pfn is a piece of, or NULL.
 */
struct folio *hugetlb_split_whole(unsigned long pfn)
{
	struct hugetlb_split *split;

	lockdep_assert_held(&hugetlb_lock);

	split = hugetlb_split_find(pfn);
	return split ? &split->whole : NULL;
}

/*
 * Is @folio a piece?  Needs neither a reference nor a lock, but is slow: most code
 * asks for the page type, which pieces that are mapped don't have.
 */
bool folio_is_hugetlb_piece(struct folio *folio)
{
	return hugetlb_split_find(folio_pfn(folio));
}

/* What says of a huge page or a piece what the whole is like. */
static struct folio *piece_whole(struct folio *folio)
{
	if (folio_test_hugetlb(folio))
		return folio;
	return &hugetlb_split_find(folio_pfn(folio))->whole;
}

unsigned int hugetlb_piece_whole_order(struct folio *folio)
{
	return folio_order(piece_whole(folio));
}

bool hugetlb_piece_has_hvo(struct folio *folio)
{
	return folio_test_hugetlb_vmemmap_optimized(piece_whole(folio));
}

/*
 * The page is freed with what it was split with, but for what the page cache takes
 * off a folio that leaves it.
 */
static void free_rejoined(struct hugetlb_split *split)
{
	struct folio *folio = page_folio(split->head);

	hugetlb_share_tails(folio);
	/* The page cache that it was split in may be gone. */
	split->whole.mapping = NULL;
	hugetlb_split_end(split);
	folio_clear_dirty(folio);
	count_vm_event(HTLB_REJOIN);
	trace_hugetlb_rejoin(folio_pfn(folio), folio_order(folio));
	free_huge_folio(folio);
}

/* Pages whose pieces are all home, and how many of them wait for a grace period at once. */
static LLIST_HEAD(complete_pages);
#define REJOIN_BATCH	64

static void rejoin_batch(void)
{
	struct llist_node *node, *joined = NULL;
	struct hugetlb_split *split, *next;
	int nr;

	for (nr = 0; nr < REJOIN_BATCH && (node = llist_del_first(&complete_pages)); nr++) {
		split = llist_entry(node, struct hugetlb_split, rejoin);
		hugetlb_join_pieces(page_folio(split->head), folio_order(&split->whole));
		node->next = joined;
		joined = node;
		cond_resched();
	}
	synchronize_rcu_expedited();
	llist_for_each_entry_safe(split, next, joined, rejoin) {
		free_rejoined(split);
		cond_resched();
	}
}

/*
 * A whole guest's pages can come at once.  The latest batch goes first, and no batch
 * takes long: who has just given back a page may be waiting for it.
 */
static void rejoin_pieces(struct work_struct *work)
{
	while (!llist_empty(&complete_pages))
		rejoin_batch();
}

static DECLARE_WORK(rejoin_work, rejoin_pieces);

/**
 * hugetlb_split_prepare() - Get ready to split a folio.
 * @folio: a huge page, or a piece of one
 *
 * Context: may sleep.  The caller keeps @folio in the page cache.
 * Return: the split page, which a huge page becomes with hugetlb_split_begin() or
 * hugetlb_split_unprepare() frees; or an ERR_PTR of -ENOMEM.
 */
struct hugetlb_split *hugetlb_split_prepare(struct folio *folio)
{
	struct hugetlb_split *split;
	unsigned int order;

	if (!folio_test_hugetlb(folio))
		return hugetlb_split_find(folio_pfn(folio));

	split = kzalloc_obj(*split, GFP_KERNEL_ACCOUNT);
	if (!split)
		return ERR_PTR(-ENOMEM);

	memcpy(&split->whole, folio, sizeof(*folio));
	split->head = &folio->page;
	atomic_long_set(&split->nr_away, folio_nr_pages(folio));

	if (store_split(split, XA_ZERO_ENTRY))
		goto err_free;

	/* The zone keeps them.  With them at hand no merge needs memory. */
	for (order = VMEMMAP_TAIL_MIN_ORDER; order < folio_order(folio); order++)
		if (folio_test_hugetlb_vmemmap_optimized(folio) &&
		    !hugetlb_vmemmap_get_tail(order, folio_zone(folio)))
			goto err_erase;

	return split;

err_erase:
	store_split(split, NULL);
err_free:
	kfree(split);
	return ERR_PTR(-ENOMEM);
}

/* Undo hugetlb_split_prepare(), unless the page is split by now. */
void hugetlb_split_unprepare(struct hugetlb_split *split)
{
	if (hugetlb_split_find(page_to_pfn(split->head)))
		return;

	store_split(split, NULL);
	kfree(split);
}

/**
 * hugetlb_split_begin() - Take the huge page out of its struct pages.
 * @split: what hugetlb_split_prepare() returned for a whole page
 *
 * Context: any but hard interrupts.  The page's reference count is zero.
 */
void hugetlb_split_begin(struct hugetlb_split *split)
{
	struct folio *folio = page_folio(split->head);
	unsigned long flags;

	VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio), folio);

	spin_lock_irqsave(&hugetlb_lock, flags);
	memcpy(&split->whole, folio, sizeof(*folio));
	list_replace(&folio->lru, &split->whole.lru);
	__folio_clear_hugetlb(folio);
	store_split(split, split);
	spin_unlock_irqrestore(&hugetlb_lock, flags);

	/* Whoever sees a piece made of the page finds the split, see any_page_poisoned(). */
	smp_wmb();
}

/**
 * hugetlb_split_end() - Put the huge page back into its struct pages.
 * @split: a page whose pieces have been joined to one; it is freed
 *
 * Context: any but hard interrupts.  The page's reference count is zero.
 */
void hugetlb_split_end(struct hugetlb_split *split)
{
	struct folio *folio = page_folio(split->head);
	unsigned long flags;

	VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio), folio);

	spin_lock_irqsave(&hugetlb_lock, flags);
	store_split(split, NULL);
	memcpy(folio, &split->whole, sizeof(*folio));
	list_replace(&split->whole.lru, &folio->lru);
	spin_unlock_irqrestore(&hugetlb_lock, flags);

	kfree_rcu(split, rcu);
}

/* munlock() doesn't find pages that were unmapped before it came. */
void hugetlb_piece_clear_mlocked(struct folio *folio)
{
	if (unlikely(folio_test_clear_mlocked(folio)))
		zone_stat_mod_folio(folio, NR_MLOCK, -folio_nr_pages(folio));
}

/*
 * A piece leaves the page cache, where nothing of HugeTLB pages is counted.  It can't
 * be mapped any more, so even a small one may say what it is.
 */
void hugetlb_piece_unaccount(struct folio *folio)
{
	__folio_set_hugetlb_piece(folio);
	trace_hugetlb_piece_park(folio_pfn(folio), folio_order(folio));
}

/* A piece that has left the page cache loses its last reference, in any context. */
void hugetlb_free_piece(struct folio *folio)
{
	struct hugetlb_split *split = hugetlb_split_find(folio_pfn(folio));

	VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio), folio);

	trace_hugetlb_piece_release(folio_pfn(folio), folio_order(folio));
	hugetlb_piece_clear_mlocked(folio);
	if (atomic_long_sub_and_test(folio_nr_pages(folio), &split->nr_away) &&
	    llist_add(&split->rejoin, &complete_pages))
		queue_work(system_dfl_wq, &rejoin_work);
}
