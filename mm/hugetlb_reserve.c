// SPDX-License-Identifier: GPL-2.0-only
/*
 * HugeTLB pages in the page cache of files outside of hugetlbfs.
 *
 * Such a file owns a subpool in which every page of the file is reserved from
 * the day the file is created: that is when its user learns that the pool is
 * too small, and never again.  A page lives through
 *
 *   hugetlb_reserve_subpool()    reserved, charged to the creator's hugetlb
 *                                cgroup as a reservation
 *   hugetlb_get_reserved_folio() allocated, charged to the first user as usage,
 *                                zeroed, in the page cache
 *   the folio's last reference   reserved again; in the pool at once
 *   hugepage_put_subpool()       nobody's
 *
 * and leaves the page cache like any other folio, e.g. by truncation.  The
 * reservation lasts until the subpool is put and the last folio has come back.
 *
 * Lock order: invalidate_lock of the mapping, the hugetlb fault mutex of the
 * huge page, the folio's lock, hugetlb_lock.
 */
#include <linux/hugetlb.h>
#include <linux/hugetlb_cgroup.h>
#include <linux/hugetlb_reserve.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "hugetlb_internal.h"

/*
 * How long to wait for a reserved page that is out of reach, in jiffies.  A page
 * that just left the page cache is not in the pool yet if somebody who came
 * across it, e.g. mincore() or an attempt to offline memory, has it referenced;
 * and a free page may be isolated.  Neither lasts long.
 */
#define RESERVED_FOLIO_TIMEOUT	HZ

/**
 * hugetlb_reserve_subpool() - Reserve pages of the pool for a file.
 * @h: the size of the pages
 * @nr_hpages: how many, in huge pages of @h
 *
 * Takes the reservation out of the pages that are free now, the pool doesn't
 * grow for it, and charges it to current's hugetlb cgroup.
 *
 * Context: may sleep.
 * Return: a subpool to be dropped with hugepage_put_subpool(), or an ERR_PTR of
 * -ENOMEM if the pool, the cgroup's limit or memory for the subpool is short;
 * nothing is charged or reserved then.
 */
struct hugepage_subpool *hugetlb_reserve_subpool(struct hstate *h,
						 unsigned long nr_hpages)
{
	unsigned long nr_pages = nr_hpages * pages_per_huge_page(h);
	struct hugetlb_cgroup *h_cg = NULL;
	struct hugepage_subpool *spool;

	spool = __hugepage_new_subpool(h, nr_hpages, nr_hpages);
	if (!spool)
		return ERR_PTR(-ENOMEM);

	if (hugetlb_cgroup_charge_cgroup_rsvd(hstate_index(h), nr_pages, &h_cg))
		goto err_free;

	if (hugetlb_acct_free_pages(h, nr_hpages))
		goto err_uncharge;

	spool->rsvd_cgroup = h_cg;
	return spool;

err_uncharge:
	hugetlb_cgroup_uncharge_cgroup_rsvd(hstate_index(h), nr_pages, h_cg);
err_free:
	kfree(spool);
	return ERR_PTR(-ENOMEM);
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_reserve_subpool, "kvm");

/*
 * Turn a reservation of @spool into a folio.  From here on the reservation goes
 * back to @spool with the folio's last reference.  -EAGAIN says that no page is
 * in reach, which may or may not change soon.
 */
static struct folio *alloc_reserved_folio(struct hugepage_subpool *spool,
					  struct mempolicy *pol, pgoff_t ilx)
{
	struct hstate *h = spool->hstate;
	struct mempolicy_interpreted mpoli;
	struct folio *folio;

	if (hugepage_subpool_get_pages(spool, 1) < 0)
		return ERR_PTR(-EAGAIN);

	interpret_mempolicy(pol, ilx, htlb_alloc_mask(h), &mpoli);
	folio = hugetlb_alloc_folio(h, &mpoli, current->mm,
				    HUGETLB_ALLOC_USE_GLOBAL_RESERVATIONS |
				    HUGETLB_ALLOC_NO_SURPLUS);
	if (IS_ERR(folio)) {
		hugepage_subpool_put_pages(spool, 1);
		return PTR_ERR(folio) == -EAGAIN ? folio : ERR_PTR(-ENOMEM);
	}

	hugetlb_set_folio_subpool(folio, spool);
	folio_clear_hugetlb_restore_reserve(folio);
	return folio;
}

/* Returns a locked folio, that nobody could see before it was all zero. */
static struct folio *add_reserved_folio(struct address_space *mapping,
					pgoff_t index,
					struct hugepage_subpool *spool,
					struct mempolicy *pol)
{
	unsigned int order = huge_page_order(spool->hstate);
	struct folio *folio;
	int err;

	folio = alloc_reserved_folio(spool, pol,
				     mapping->host->i_ino + (index >> order));
	if (IS_ERR(folio))
		return folio;

	folio_zero_user(folio, 0);

	/* Atomically: memory_failure() looks at folios wherever they are. */
	folio_mark_uptodate(folio);
	folio_lock(folio);
	err = __filemap_add_folio(mapping, folio, round_down(index, 1UL << order),
				  GFP_KERNEL, NULL);
	if (err) {
		folio_unlock(folio);
		folio_put(folio);
		return ERR_PTR(err);
	}

	/* There is no other copy of the data. */
	folio_mark_dirty(folio);
	return folio;
}

/**
 * hugetlb_get_reserved_folio() - Find or allocate the huge page at an index.
 * @mapping: the file's page cache
 * @index: any index within the huge page, in PAGE_SIZE units
 * @spool: what hugetlb_reserve_subpool() gave the file
 * @pol: the file's memory policy for @index, or NULL for the current task's
 *
 * A new folio is zero, up to date and dirty.  Concurrent callers get the same
 * folio: none of them fails because another one took the last page.
 *
 * Context: may sleep.  The caller holds @mapping's invalidate_lock, so that no
 * folio is on its way out of the page cache with its reservation still in use.
 * Return: a locked folio with a reference for the caller, or an ERR_PTR of
 * -ENOMEM: over the usage limit of the hugetlb or memory cgroup, short of memory
 * for the page cache, no page on the nodes that @pol or the cpuset allows, or
 * the file's page is held or isolated by others, or poisoned, for too long.
 */
struct folio *hugetlb_get_reserved_folio(struct address_space *mapping,
					 pgoff_t index,
					 struct hugepage_subpool *spool,
					 struct mempolicy *pol)
{
	pgoff_t idx = index >> huge_page_order(spool->hstate);
	unsigned long timeout = jiffies + RESERVED_FOLIO_TIMEOUT;
	u32 hash = hugetlb_fault_mutex_hash(mapping, idx);
	struct folio *folio;

	lockdep_assert_held(&mapping->invalidate_lock);

	for (;;) {
		mutex_lock(&hugetlb_fault_mutex_table[hash]);
		folio = filemap_lock_folio(mapping, index);
		if (IS_ERR(folio))
			folio = add_reserved_folio(mapping, index, spool, pol);
		mutex_unlock(&hugetlb_fault_mutex_table[hash]);

		if (!IS_ERR(folio) || PTR_ERR(folio) != -EAGAIN)
			return folio;

		if (time_after(jiffies, timeout) || fatal_signal_pending(current))
			return ERR_PTR(-ENOMEM);

		/* Not with the mutex held: hugetlbfs hashes to it as well. */
		schedule_timeout_killable(1);
	}
}
EXPORT_SYMBOL_FOR_MODULES(hugetlb_get_reserved_folio, "kvm");
