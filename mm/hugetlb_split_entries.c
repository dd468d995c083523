// SPDX-License-Identifier: GPL-2.0-only
/*
 * The entries of HugeTLB pieces in the page cache.
 *
 * A folio of order n has one entry, which covers 2^n indices.  Splitting it takes
 * memory for the nodes in between, 3 for one page out of 1G.  So the entries are
 * split first, while all still point to the folio that is there, and point to the
 * pieces as soon as there are any.  The other way round there is nothing to fail:
 * an entry that is stored over smaller ones frees their nodes.
 */
#include <linux/dax.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/xarray.h>

#include "hugetlb_split.h"
#include "internal.h"

/* Make the page cache's entry at an index one of at most @order. */
static int split_entry(struct xa_state *xas, struct folio *folio, pgoff_t index,
		       unsigned int order)
{
	unsigned int old;

	do {
		xas_lock_irq(xas);
		do {
			xas_set(xas, index);
			xas_load(xas);
			old = xas_get_order(xas);
			if (old <= order)
				break;
			xas_set_order(xas, index,
				      max(order, xas_try_split_min_order(old)));
			xas_try_split(xas, folio, old);
		} while (!xas_error(xas));
		xas_unlock_irq(xas);
	} while (xas_nomem(xas, GFP_KERNEL));

	return xas_error(xas);
}

/**
 * hugetlb_join_entries() - Let one entry point to a folio.
 * @mapping: the file
 * @folio: a huge page, or a piece
 *
 * Undoes hugetlb_split_entries(), however far it got, and hugetlb_store_pieces().
 *
 * Context: any but hard interrupts.  Nobody else changes these entries.
 */
void hugetlb_join_entries(struct address_space *mapping, struct folio *folio)
{
	XA_STATE_ORDER(xas, &mapping->i_pages, folio->index, folio_order(folio));

	mapping_set_update(&xas, mapping);

	xas_lock_irq(&xas);
	xas_store(&xas, folio);
	xas_unlock_irq(&xas);
	VM_WARN_ON_ONCE(xas_error(&xas));
}

/**
 * hugetlb_split_entries() - Make room for pieces in the page cache.
 * @mapping: the file
 * @folio: a huge page, or a piece
 * @cut: how it is going to be cut
 *
 * All entries still point to @folio, which is correct, just more than it needs.
 *
 * Context: may sleep.  Nobody else changes these entries.
 * Return: 0, or -ENOMEM and all is as before.
 */
int hugetlb_split_entries(struct address_space *mapping, struct folio *folio,
			  const struct hugetlb_cut *cut)
{
	XA_STATE(xas, &mapping->i_pages, folio->index);
	unsigned int order;
	unsigned long pos;
	int err;

	mapping_set_update(&xas, mapping);

	for_each_hugetlb_piece(cut, pos, order) {
		err = split_entry(&xas, folio, folio->index + pos, order);
		if (err) {
			hugetlb_join_entries(mapping, folio);
			return err;
		}
	}
	return 0;
}

/**
 * hugetlb_store_pieces() - Let each entry point to its piece.
 * @mapping: the file
 * @folio: what has been cut
 * @cut: for which hugetlb_split_entries() has made the entries
 *
 * Context: any but hard interrupts.  The reference counts of the pieces are zero.
 */
void hugetlb_store_pieces(struct address_space *mapping, struct folio *folio,
			  const struct hugetlb_cut *cut)
{
	XA_STATE(xas, &mapping->i_pages, folio->index);
	unsigned int order;
	unsigned long pos;

	mapping_set_update(&xas, mapping);

	xas_lock_irq(&xas);
	for_each_hugetlb_piece(cut, pos, order) {
		xas_set_order(&xas, folio->index + pos, order);
		xas_store(&xas, folio_page(folio, pos));
	}
	xas_unlock_irq(&xas);
	VM_WARN_ON_ONCE(xas_error(&xas));
}
