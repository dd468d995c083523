// SPDX-License-Identifier: GPL-2.0-only
/*
 * Huge pages of a guest_memfd that are split, because the host uses single pages.
 *
 * Memory that the host maps, pins or does I/O on is in folios of one page, so that
 * what it does with one page is nothing that concerns any other.  Memory that is
 * private, and shared memory that the host never touched, is in folios as large as
 * possible; mm/hugetlb_split.c does the rest, and calls parts of a page pieces.
 *
 *   shared from the start   whole until the host touches it, then the 2M around that
 *                           are split, as far as they are shared
 *   converted to shared     split before the conversion, as that can fail
 *   converted to private    merged after the conversion
 *   leaves the file         merged first, so that it is in the pool at once; what
 *                           others hold for longer than an instant follows when
 *                           they let go of it
 *
 * All of this happens with the invalidate lock held exclusively.  The guest doesn't
 * notice: KVM maps by page frame, and the page frames stay where they are.
 */
#include <linux/hugetlb_split.h>
#include <linux/kvm_host.h>
#include <linux/maple_tree.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>
#include <linux/xarray.h>

#include "guest_memfd.h"

/* What is split when the host touches a page, in pages. */
#define KVM_GMEM_HOST_NR_PAGES	(SZ_2M >> PAGE_SHIFT)

/* Split what is shared of the 2M around a page that the host is going to use. */
int kvm_gmem_split_around(struct inode *inode, pgoff_t index)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, index, index);
	pgoff_t start = round_down(index, KVM_GMEM_HOST_NR_PAGES);
	pgoff_t end = start + KVM_GMEM_HOST_NR_PAGES;

	if (WARN_ON_ONCE(!mas_walk(&mas)))
		return -EIO;

	return hugetlb_split_range(inode->i_mapping, max(start, mas.index),
				   min(end, mas.last + 1), NULL);
}

/*
 * Merge what is private in the range, with what is private beside it in the same huge
 * pages.  Shared memory is left alone: the host asked for single pages.
 */
void kvm_gmem_merge_private(struct inode *inode, pgoff_t start, pgoff_t end)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, start, start);
	const pgoff_t nr_pages = kvm_gmem_nr_pages(inode);
	void *entry;

	mas_for_each(&mas, entry, end - 1) {
		if (!(xa_to_value(entry) & KVM_MEMORY_ATTRIBUTE_PRIVATE))
			continue;

		hugetlb_merge_range(inode->i_mapping,
				    max(mas.index, round_down(start, nr_pages)),
				    min(mas.last + 1, round_up(end, nr_pages)));
	}
}

/*
 * Before huge pages are truncated: -EAGAIN, and no change but host mappings that may
 * be gone, if somebody has a reference to any of them.
 */
int kvm_gmem_prepare_truncation(struct inode *inode, pgoff_t start, pgoff_t end)
{
	enum lru_cache_drained drained = LRU_CACHE_NOT_DRAINED;
	struct address_space *mapping = inode->i_mapping;
	pgoff_t err_index;
	int r;

	/* Entries that tell of a memory error have to go with the memory, too. */
	unmap_mapping_pages(mapping, start, end - start, true);

	r = kvm_gmem_check_references(mapping, start, end, &drained, &err_index);
	if (!r)
		hugetlb_merge_range(mapping, start, end);

	return r;
}

/*
 * Nobody uses the file any more.  What is whole when it is truncated is in the pool at
 * once; what others hold stays in pieces, but they may not know that they hold it: the
 * LRU caches keep pages that were locked into memory.
 */
void kvm_gmem_merge_all(struct inode *inode)
{
	const pgoff_t nr_pages = kvm_gmem_nr_pages(inode), end = i_size_read(inode) >> PAGE_SHIFT;
	enum lru_cache_drained drained = LRU_CACHE_NOT_DRAINED;
	struct address_space *mapping = inode->i_mapping;
	pgoff_t index, err_index;

	if (hugetlb_merge_range(mapping, 0, end))
		return;

	for (index = 0; index < end; index += nr_pages)
		if (!kvm_gmem_check_references(mapping, index, index + nr_pages, &drained,
					       &err_index))
			hugetlb_merge_range(mapping, index, index + nr_pages);
}
