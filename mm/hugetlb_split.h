/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of mm/hugetlb_split*.c share.  See mm/hugetlb_split.c.
 */
#ifndef _MM_HUGETLB_SPLIT_H
#define _MM_HUGETLB_SPLIT_H

#include <linux/hugetlb.h>
#include <linux/hugetlb_split.h>
#include <linux/llist.h>
#include <linux/log2.h>
#include <linux/minmax.h>

/**
 * struct hugetlb_split - a HugeTLB page, from its first split until it is whole
 * @whole: the page's own descriptor, struct pages 0 to 3 as they were.  It holds
 *	what the pieces have no room for (subpool, cgroups, memory cgroup, flags,
 *	memory errors) and stands in for the page on the hstate's active list.
 * @head: the first struct page
 * @nr_away: base pages that are in the page cache or in somebody's hands
 * @rejoin: in the list of those whose last piece has come home
 * @rcu: delays freeing it, as some look at @whole's flags without a lock
 *
 * The page cache's invalidate_lock, held exclusively, protects the pieces until
 * they leave the page cache; from then on there is nothing left to be changed
 * but @nr_away, and when that is zero, who joins the pieces owns all.  @whole is
 * protected by hugetlb_lock.
 */
struct hugetlb_split {
	struct folio		whole;
	struct page		*head;
	atomic_long_t		nr_away;
	struct llist_node	rejoin;
	struct rcu_head		rcu;
};

/*
 * How to cut a folio: [@start, @end) into pieces of @order, or less at its ends,
 * and what is outside of it into pieces as large as they can be.  Positions are
 * in pages from the folio's first one, @nr of which it has.
 */
struct hugetlb_cut {
	unsigned long	start;
	unsigned long	end;
	unsigned long	nr;
	unsigned int	order;
};

/*
 * The order of the piece that starts at @pos, where another one ended.  All are
 * aligned to their size, as the folio is.
 */
static inline unsigned int hugetlb_cut_order(const struct hugetlb_cut *cut,
					     unsigned long pos)
{
	unsigned int order;

	if (pos < cut->start)
		order = ilog2(cut->start - pos);
	else if (pos < cut->end)
		order = min_t(unsigned int, cut->order, ilog2(cut->end - pos));
	else
		order = ilog2(cut->nr - pos);

	return pos ? min_t(unsigned int, order, __ffs(pos)) : order;
}

#define for_each_hugetlb_piece(cut, pos, ord)				\
	for (pos = 0;							\
	     pos < (cut)->nr && (ord = hugetlb_cut_order(cut, pos), true); \
	     pos += 1UL << ord)

/* mm/hugetlb_split_entries.c */
int hugetlb_split_entries(struct address_space *mapping, struct folio *folio,
			  const struct hugetlb_cut *cut);
void hugetlb_store_pieces(struct address_space *mapping, struct folio *folio,
			  const struct hugetlb_cut *cut);
void hugetlb_join_entries(struct address_space *mapping, struct folio *folio);

/* mm/hugetlb_split_pages.c */
int hugetlb_prepare_pieces(struct folio *folio, const struct hugetlb_cut *cut);
void hugetlb_make_pieces(struct folio *folio, const struct hugetlb_cut *cut);
void hugetlb_join_pieces(struct folio *folio, unsigned int order);
void hugetlb_share_tails(struct folio *folio);

/* mm/hugetlb_split_whole.c */
struct hugetlb_split *hugetlb_split_prepare(struct folio *folio);
void hugetlb_split_unprepare(struct hugetlb_split *split);
struct hugetlb_split *hugetlb_split_find(unsigned long pfn);
unsigned int hugetlb_piece_whole_order(struct folio *folio);
bool hugetlb_piece_has_hvo(struct folio *folio);
void hugetlb_split_begin(struct hugetlb_split *split);
void hugetlb_split_end(struct hugetlb_split *split);
void hugetlb_piece_clear_mlocked(struct folio *folio);

/* mm/hugetlb_split_error.c */
bool hugetlb_split_poisoned(struct hugetlb_split *split, struct page *page,
			    unsigned long nr);

/* mm/memory-failure.c */
#ifdef CONFIG_MEMORY_FAILURE
struct page *hugetlb_raw_hwpoison(struct folio *folio, struct page *page,
				  unsigned long nr);
#else
static inline struct page *hugetlb_raw_hwpoison(struct folio *folio,
						struct page *page, unsigned long nr)
{
	return NULL;
}
#endif

#endif /* _MM_HUGETLB_SPLIT_H */
