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
 *                           others hold follows when they let go of it
 *
 * All of this happens with the invalidate lock held exclusively.  The guest doesn't
 * notice: KVM maps by page frame, and the page frames stay where they are.
 */
#include <linux/hugetlb_split.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>

#include "guest_memfd.h"

/* What is split when the host touches a page, in pages. */
#define KVM_GMEM_HOST_NR_PAGES	(SZ_2M >> PAGE_SHIFT)

/*
 * Split the 2M around a page that the host is going to use, as far as they lie in
 * [@start, @end), which is shared.
 */
int kvm_gmem_split_around(struct inode *inode, pgoff_t index, pgoff_t start, pgoff_t end)
{
	start = max(start, round_down(index, KVM_GMEM_HOST_NR_PAGES));
	end = min(end, round_down(index, KVM_GMEM_HOST_NR_PAGES) + KVM_GMEM_HOST_NR_PAGES);

	return hugetlb_split_range(inode->i_mapping, start, end);
}

/*
 * Make everything in [@start, @end) single pages.  On failure @err_index is where,
 * and what is private is to be merged again.
 */
int kvm_gmem_split_for_conversion(struct inode *inode, pgoff_t start, pgoff_t end,
				  pgoff_t *err_index)
{
	pgoff_t index, next;
	int r;

	for (index = start; index < end; index = next) {
		next = min(end, round_up(index + 1, kvm_gmem_nr_pages(inode)));
		r = hugetlb_split_range(inode->i_mapping, index, next);
		if (r) {
			*err_index = index;
			return r;
		}
	}

	return 0;
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
