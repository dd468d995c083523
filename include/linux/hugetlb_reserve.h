/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HugeTLB pages for files outside of hugetlbfs, see mm/hugetlb_reserve.c.
 */
#ifndef _LINUX_HUGETLB_RESERVE_H
#define _LINUX_HUGETLB_RESERVE_H

#include <linux/types.h>

struct address_space;
struct folio;
struct hstate;
struct hugepage_subpool;
struct mempolicy;

struct hugepage_subpool *hugetlb_reserve_subpool(struct hstate *h,
						 unsigned long nr_hpages);
struct folio *hugetlb_get_reserved_folio(struct address_space *mapping,
					 pgoff_t index,
					 struct hugepage_subpool *spool,
					 struct mempolicy *pol);

#endif /* _LINUX_HUGETLB_RESERVE_H */
