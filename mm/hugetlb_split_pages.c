// SPDX-License-Identifier: GPL-2.0-only
/*
 * The struct pages of HugeTLB pieces, and the vmemmap behind them.
 *
 * With HVO only the first vmemmap page of a huge page is its own.  All others are
 * one read-only page that every huge page of that order in the zone shares: struct
 * pages of a tail say nothing but where the head is, and they say it as a mask that
 * depends on the order alone.  Pieces keep to that scheme:
 *
 *   order 7 and up    a vmemmap page of its own for the head and what is stored in
 *                     the first tails; the zone's page of that order for the rest
 *   order 6 and less  64 struct pages, of one piece or of several, have a vmemmap
 *                     page of their own
 *
 * So the vmemmap page at which a piece starts is its own and writable, and no other
 * is.  Without HVO all are, and only the struct pages have to be changed:
 *
 *   hugetlb_prepare_pieces()  vmemmap pages for future heads, tails as yet
 *   hugetlb_make_pieces()     one head becomes many
 *   hugetlb_join_pieces()     many heads become one
 *   hugetlb_share_tails()     gives up vmemmap pages that hold nothing but tails
 *
 * The first and the last change nothing that anybody could see.  For the two in the
 * middle nobody has a reference, nor can get one, but everybody may look:
 * compound_head() of each struct page yields a head with the reference count zero,
 * the old one or the new one, until the TLBs of all CPUs agree on the new one.
 */
#include <linux/mm.h>
#include <linux/pgtable.h>

#include <asm/tlbflush.h>

#include "hugetlb_split.h"
#include "hugetlb_vmemmap.h"
#include "internal.h"

#define PAGES_PER_VMEMMAP	(PAGE_SIZE / sizeof(struct page))

/* What every piece takes over from the folio it was part of. */
#define PIECE_FLAGS		(BIT(PG_uptodate) | BIT(PG_dirty))
/* What no struct page takes along; not its zone, node and section. */
#define STALE_FLAGS		(PAGE_FLAGS_CHECK_AT_PREP | __PG_HWPOISON)

/* All vmemmap pages of a block, by their first struct page, but the head's. */
#define for_each_tail_vmemmap(page, head, order)			\
	for (page = (head) + PAGES_PER_VMEMMAP;				\
	     page < (head) + (1UL << (order)); page += PAGES_PER_VMEMMAP)

/*
 * HVO split the vmemmap's mapping down to PTEs when it optimized the page, and they
 * stay until the page is given up.
 */
static pte_t *vmemmap_pte(struct page *page)
{
	unsigned long addr = (unsigned long)page;

	return pte_offset_kernel(pmd_off_k(addr), addr);
}

static bool vmemmap_is_own(struct page *page)
{
	return pte_write(ptep_get(vmemmap_pte(page)));
}

static void map_own(struct page *page, struct page *backing)
{
	set_pte_at(&init_mm, (unsigned long)page, vmemmap_pte(page),
		   mk_pte(backing, PAGE_KERNEL));
}

static void map_shared(struct page *page, struct page *backing)
{
	set_pte_at(&init_mm, (unsigned long)page, vmemmap_pte(page),
		   mk_pte(backing, PAGE_KERNEL_RO));
}

static void flush_vmemmap(struct page *page, unsigned long nr)
{
	flush_tlb_kernel_range((unsigned long)page, (unsigned long)(page + nr));
}

/* The page that all tails of an order share; the zone has it since the first split. */
static struct page *shared_tail(struct page *page, unsigned int order)
{
	return hugetlb_vmemmap_get_tail(order, page_zone(page));
}

/* Folios of up to a vmemmap page's struct pages have none but their own. */
static bool has_shared_tails(struct folio *folio)
{
	return hugetlb_piece_has_hvo(folio) &&
	       folio_order(folio) >= VMEMMAP_TAIL_MIN_ORDER;
}

/* Does the piece at @pos of a folio need a vmemmap page that isn't there yet? */
static bool needs_vmemmap(unsigned long pos)
{
	return pos && IS_ALIGNED(pos, PAGES_PER_VMEMMAP);
}

/**
 * hugetlb_prepare_pieces() - Make the struct pages of future heads writable.
 * @folio: a whole huge page, or a piece
 * @cut: how @folio is going to be cut
 *
 * The new vmemmap pages say the same as the shared one that they replace.  They are
 * charged to the memory cgroup of who wants the pieces.
 *
 * Context: may sleep.  @folio can't be split, merged or freed meanwhile.
 * Return: 0, or -ENOMEM and all is as before.
 */
int hugetlb_prepare_pieces(struct folio *folio, const struct hugetlb_cut *cut)
{
	unsigned int order;
	unsigned long pos;

	if (!has_shared_tails(folio))
		return 0;

	for_each_hugetlb_piece(cut, pos, order) {
		struct page *page = folio_page(folio, pos);
		struct page *backing;

		if (!needs_vmemmap(pos))
			continue;

		backing = alloc_pages_node(folio_nid(folio), GFP_KERNEL_ACCOUNT, 0);
		if (!backing) {
			hugetlb_share_tails(folio);
			return -ENOMEM;
		}
		memmap_pages_add(1);

		copy_page(page_address(backing), page);
		/* The copy comes before the PTE that lets others read it. */
		smp_wmb();
		map_own(page, backing);
	}

	flush_vmemmap(&folio->page, cut->nr);
	return 0;
}

/**
 * hugetlb_share_tails() - Give up vmemmap pages that hold nothing but tails.
 * @folio: a whole huge page, or a piece
 *
 * Undoes hugetlb_prepare_pieces(), and completes hugetlb_join_pieces().  After the
 * latter there must have been an RCU grace period: whoever saw a head there, with a
 * reference count, may be about to try and change that, and has to do so while the
 * struct page is writable.
 *
 * Context: interrupts are enabled.  @folio can't be split, merged or freed meanwhile.
 */
void hugetlb_share_tails(struct folio *folio)
{
	unsigned int order = folio_order(folio);
	struct page *page, *tail;
	LIST_HEAD(vmemmap_pages);

	if (!has_shared_tails(folio))
		return;

	tail = shared_tail(&folio->page, order);
	for_each_tail_vmemmap(page, &folio->page, order) {
		if (!vmemmap_is_own(page))
			continue;
		list_add(&pte_page(ptep_get(vmemmap_pte(page)))->lru, &vmemmap_pages);
		map_shared(page, tail);
	}

	if (list_empty(&vmemmap_pages))
		return;
	flush_vmemmap(&folio->page, 1UL << order);
	free_vmemmap_page_list(&vmemmap_pages);
}

#ifdef CONFIG_MEMCG
/* The charge is the whole page's. */
static void clear_memcg_data(struct page *page)
{
	page->memcg_data = 0;
}
#else
static void clear_memcg_data(struct page *page)
{
}
#endif

/* It is a head in all respects before it says so. */
static void init_head(struct folio *folio, unsigned int order, unsigned long flags)
{
	folio->flags.f = (folio->flags.f & ~STALE_FLAGS) | flags |
			 (order ? BIT(PG_head) : 0);
	folio->page.lru.prev = NULL;
	folio->private = NULL;
	atomic_set(&folio->_mapcount, -1);
	clear_memcg_data(&folio->page);
	/* Whoever finds it to be a head finds the above. */
	smp_wmb();
	clear_compound_head(&folio->page);
}

/* What was a head, or held something for one, holds nothing of it afterwards. */
static void init_tail(struct page *page, struct page *head, unsigned int order)
{
	page->flags.f &= ~STALE_FLAGS;
	page->lru.prev = NULL;
	((struct folio *)page)->index = 0;
	page->private = 0;
	atomic_set(&page->_mapcount, -1);
	clear_memcg_data(page);
	prep_compound_tail(page, head, order);
}

/* From the last one down: what was a head goes after what it was the head of. */
static void init_tails(struct page *first, unsigned long nr, struct page *head,
		       unsigned int order)
{
	while (nr--)
		init_tail(first + nr, head, order);
}

/* Make a piece of all its struct pages, or with HVO of those in its first vmemmap page. */
static void init_piece(struct folio *folio, unsigned int order, unsigned long flags,
		       bool hvo)
{
	unsigned long nr = 1UL << order;

	init_head(folio, order, flags);
	if (!order)
		return;

	if (hvo)
		nr = min(nr, PAGES_PER_VMEMMAP);
	init_tails(&folio->page + 1, nr - 1, &folio->page, order);
	prep_compound_head(&folio->page, order);
	__folio_set_hugetlb_piece(folio);
}

/* Let the shared tails of a block be those of another order. */
static void change_shared_tails(struct page *head, unsigned int order)
{
	struct page *page, *tail;

	if (order < VMEMMAP_TAIL_MIN_ORDER)
		return;

	tail = shared_tail(head, order);
	for_each_tail_vmemmap(page, head, order)
		if (!vmemmap_is_own(page))
			map_shared(page, tail);
}

/**
 * hugetlb_make_pieces() - Cut a folio.
 * @folio: a huge page after hugetlb_split_begin(), or a piece
 * @cut: what hugetlb_prepare_pieces() prepared
 *
 * Pieces above order 0 get their page type, and those with memory errors are marked.
 * The reference counts of all are zero before and after.
 *
 * Context: may be atomic, but interrupts are enabled.
 */
void hugetlb_make_pieces(struct folio *folio, const struct hugetlb_cut *cut)
{
	struct hugetlb_split *split = hugetlb_split_find(folio_pfn(folio));
	unsigned long pos, flags = folio->flags.f & PIECE_FLAGS;
	struct address_space *mapping = folio->mapping;
	bool hvo = hugetlb_piece_has_hvo(folio);
	bool shared = has_shared_tails(folio);
	pgoff_t index = folio->index;
	unsigned int order;

	for_each_hugetlb_piece(cut, pos, order) {
		struct folio *piece = (struct folio *)folio_page(folio, pos);

		piece->mapping = mapping;
		piece->index = index + pos;
		init_piece(piece, order, flags, hvo);
		if (hugetlb_split_poisoned(split, &piece->page, 1UL << order))
			folio_set_hwpoison(piece);
	}

	if (!shared)
		return;

	for_each_hugetlb_piece(cut, pos, order)
		change_shared_tails(folio_page(folio, pos), order);
	flush_vmemmap(&folio->page, cut->nr);
}

/**
 * hugetlb_join_pieces() - Make one piece of several.
 * @folio: the first of them
 * @order: how large it gets
 *
 * Undoes hugetlb_make_pieces(), and whatever came after it, in one step, but leaves
 * it to hugetlb_share_tails() to give up vmemmap pages.  The reference counts of all
 * pieces are zero before and after.
 *
 * Context: may be atomic, but interrupts are enabled.
 */
void hugetlb_join_pieces(struct folio *folio, unsigned int order)
{
	unsigned long flags = folio->flags.f & PIECE_FLAGS;
	bool hvo = hugetlb_piece_has_hvo(folio);
	struct page *page, *head = &folio->page;

	if (hvo && order >= VMEMMAP_TAIL_MIN_ORDER) {
		change_shared_tails(head, order);
		flush_vmemmap(head, 1UL << order);

		page = head + (1UL << order);
		while ((page -= PAGES_PER_VMEMMAP) > head)
			if (vmemmap_is_own(page))
				init_tails(page, PAGES_PER_VMEMMAP, head, order);
	}

	init_piece(folio, order, flags, hvo);
}
