// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest_memfd on HugeTLB pages.
 *
 * A file created with one of GUEST_MEMFD_FLAGS_HUGETLB takes its memory from
 * the HugeTLB pool instead of the page allocator.  All of it is reserved when
 * the file is created, so that a guest that runs never finds the pool empty.
 * Pages are allocated one by one when they are first used, and return to the
 * pool when they are truncated.
 *
 * The inode knows the page size by i_blkbits and owns the reservation, a
 * subpool; everything else is up to mm/hugetlb_reserve.c.
 */
#include <linux/hugetlb.h>
#include <linux/hugetlb_reserve.h>
#include <linux/kvm_host.h>
#include <linux/mempolicy.h>

#include "guest_memfd.h"

u64 kvm_gmem_hugetlb_supported_flags(void)
{
	u64 flags = 0;

	if (size_to_hstate(SZ_2M))
		flags |= GUEST_MEMFD_FLAG_HUGETLB_2M;
	if (size_to_hstate(SZ_1G))
		flags |= GUEST_MEMFD_FLAG_HUGETLB_1G;

	return flags;
}

/*
 * Reserve all of the file in the pool.  Called on an inode that nobody else can
 * see; kvm_gmem_hugetlb_unreserve() undoes it when the inode is destroyed.
 */
int kvm_gmem_hugetlb_reserve(struct inode *inode)
{
	struct hstate *h = size_to_hstate(kvm_gmem_page_size(GMEM_I(inode)->flags));
	struct hugepage_subpool *spool;

	if (WARN_ON_ONCE(!h))
		return -EINVAL;

	spool = hugetlb_reserve_subpool(h, inode->i_size >> huge_page_shift(h));
	if (IS_ERR(spool))
		return PTR_ERR(spool);

	GMEM_I(inode)->spool = spool;
	inode->i_blkbits = huge_page_shift(h);
	return 0;
}

/* The reservation of folios that are still in use follows when they are freed. */
void kvm_gmem_hugetlb_unreserve(struct inode *inode)
{
	hugepage_put_subpool(GMEM_I(inode)->spool);
}

/*
 * Returns a locked folio, zeroed and up to date, on success.  The memory policy
 * at the first index of a huge page decides for all of it.
 */
struct folio *kvm_gmem_hugetlb_get_folio(struct inode *inode, pgoff_t index)
{
	struct gmem_inode *gi = GMEM_I(inode);
	struct mempolicy *policy;
	struct folio *folio;

	index = round_down(index, kvm_gmem_nr_pages(inode));

	policy = mpol_shared_policy_lookup(&gi->policy, index);
	folio = hugetlb_get_reserved_folio(inode->i_mapping, index, gi->spool,
					   policy);
	mpol_cond_put(policy);

	return folio;
}
