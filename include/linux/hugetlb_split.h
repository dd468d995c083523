/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HugeTLB pages that are split into pieces, see mm/hugetlb_split.c.
 */
#ifndef _LINUX_HUGETLB_SPLIT_H
#define _LINUX_HUGETLB_SPLIT_H

#include <linux/mmzone.h>
#include <linux/types.h>

struct address_space;
struct folio;
struct page;

/**
 * struct hugetlb_split_usage - what a range of a file consists of
 * @nr_folios: how many folios, by order; whole huge pages among them
 * @nr_vmemmap: pages of kernel memory that their struct pages take; the pages
 *	that HVO shares between all of a zone are not counted
 */
struct hugetlb_split_usage {
	unsigned long nr_folios[MAX_FOLIO_ORDER + 1];
	unsigned long nr_vmemmap;
};

/* For those who use pieces, and select CONFIG_HUGETLB_SPLIT. */
int hugetlb_split_range(struct address_space *mapping, pgoff_t start, pgoff_t end,
			pgoff_t *err_index);
bool hugetlb_merge_range(struct address_space *mapping, pgoff_t start, pgoff_t end);
void hugetlb_split_usage(struct address_space *mapping, pgoff_t start,
			 pgoff_t end, struct hugetlb_split_usage *usage);
struct folio *hugetlb_split_hwpoison(struct address_space *mapping, struct folio *folio);
bool hugetlb_split_page_poisoned(struct page *page);
unsigned int hugetlb_split_healthy_order(unsigned long pfn, unsigned int order);

#ifdef CONFIG_HUGETLB_SPLIT
/* For the code that meets pieces; folio_is_hugetlb_piece() takes any folio. */
void hugetlb_piece_unaccount(struct folio *folio);
void hugetlb_free_piece(struct folio *folio);
bool folio_is_hugetlb_piece(struct folio *folio);
struct folio *hugetlb_split_whole(unsigned long pfn);
#else
static inline void hugetlb_piece_unaccount(struct folio *folio)
{
}

static inline void hugetlb_free_piece(struct folio *folio)
{
}

static inline bool folio_is_hugetlb_piece(struct folio *folio)
{
	return false;
}

static inline struct folio *hugetlb_split_whole(unsigned long pfn)
{
	return NULL;
}
#endif /* CONFIG_HUGETLB_SPLIT */

#endif /* _LINUX_HUGETLB_SPLIT_H */
