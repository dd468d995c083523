// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which memory of a guest_memfd is private and which is shared, and in-place
 * conversion from the one to the other.
 *
 * The memory attributes of a file are a property of its inode: a maple tree that
 * maps each page index to an attribute word, and that always covers the whole
 * file.  Neighbours that are equal form one entry, so that the tree has as many
 * entries as the file has runs of private or shared pages.
 *
 * The invalidate lock of the mapping protects the tree.  A conversion holds it
 * exclusively.  Whoever acts on an attribute holds it at least shared, until the
 * effect is visible to a conversion: for the host, as a reference to the folio,
 * which is there before the page is mapped and as long as it is; for the guest,
 * as the obligation to check mmu_invalidate_seq before the page is mapped.  Read
 * without the lock, an attribute is a hint.
 *
 * A conversion has a point of no return, as page tables that have been zapped
 * can't be restored for all types of VMs.  Everything that may fail comes before
 * it: allocation of the tree's nodes; for memory that becomes private, and thus must
 * not be accessible to the host, the check for references that others hold; and for
 * memory that becomes shared, of which the host wants to use each page by itself, the
 * split of huge pages.
 */
#include <linux/kvm_host.h>
#include <linux/maple_tree.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/xarray.h>

#include "guest_memfd.h"

#define CREATE_TRACE_POINTS
#include <trace/events/guest_memfd.h>

#ifdef kvm_arch_has_private_mem
bool __ro_after_init gmem_in_place_conversion = !IS_ENABLED(CONFIG_KVM_VM_MEMORY_ATTRIBUTES);
EXPORT_SYMBOL_FOR_KVM_INTERNAL(gmem_in_place_conversion);
module_param(gmem_in_place_conversion, bool, 0444);
#endif

static u64 kvm_gmem_initial_attributes(struct inode *inode)
{
	return GMEM_I(inode)->flags & GUEST_MEMFD_FLAG_INIT_SHARED ?
	       0 : KVM_MEMORY_ATTRIBUTE_PRIVATE;
}

/*
 * Called on an inode that nobody else can see, with its size and flags set.
 * On failure the tree is empty; kvm_gmem_destroy_attributes() copes with that.
 */
int kvm_gmem_init_attributes(struct inode *inode)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, 0, (inode->i_size >> PAGE_SHIFT) - 1);
	int r;

	mt_set_external_lock(&GMEM_I(inode)->attributes, &inode->i_mapping->invalidate_lock);

	filemap_invalidate_lock(inode->i_mapping);
	r = mas_store_gfp(&mas, xa_mk_value(kvm_gmem_initial_attributes(inode)),
			  GFP_KERNEL);
	filemap_invalidate_unlock(inode->i_mapping);

	return r;
}

/* The tree has a lock only once kvm_gmem_init_attributes() has run. */
void kvm_gmem_destroy_attributes(struct inode *inode)
{
	struct maple_tree *mt = &GMEM_I(inode)->attributes;

	if (mtree_empty(mt))
		return;

	filemap_invalidate_lock(inode->i_mapping);
	__mt_destroy(mt);
	filemap_invalidate_unlock(inode->i_mapping);
}

/* Needs no lock, but see above for what the result is worth without it. */
u64 kvm_gmem_get_attributes(struct inode *inode, pgoff_t index)
{
	void *entry = mtree_load(&GMEM_I(inode)->attributes, index);

	if (WARN_ON_ONCE(!entry))
		return kvm_gmem_initial_attributes(inode);

	return xa_to_value(entry);
}

/*
 * Returns the order, @order at most, of the largest naturally aligned block that
 * contains @index and has one attribute throughout.
 */
unsigned int kvm_gmem_attributes_order(struct inode *inode, pgoff_t index,
				       unsigned int order)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, index, index);
	pgoff_t start;

	if (!order)
		return 0;

	scoped_guard(rcu) {
		if (WARN_ON_ONCE(!mas_walk(&mas)))
			return 0;
	}

	for (; order; order--) {
		start = round_down(index, 1UL << order);
		if (start >= mas.index && start + (1UL << order) - 1 <= mas.last)
			break;
	}

	return order;
}

/* Equal neighbours are one entry, hence a uniform range is within one, too. */
static bool kvm_gmem_range_has_attributes(struct inode *inode, pgoff_t start,
					  pgoff_t end, void *entry)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, start, start);

	return mas_walk(&mas) == entry && mas.last >= end - 1;
}

/*
 * Make sure that storing @entry to the range of @mas, extended over neighbours
 * that are equal, can't fail.  Undone by mas_destroy(); on failure, there is
 * nothing to undo.
 */
static int kvm_gmem_prealloc_attributes(struct ma_state *mas, void *entry)
{
	pgoff_t first = mas->index, last = mas->last;

	if (first) {
		mas_set(mas, first - 1);
		if (mas_walk(mas) == entry)
			first = mas->index;
	}

	mas_set(mas, last + 1);
	if (mas_walk(mas) == entry)
		last = mas->last;

	mas_set_range(mas, first, last);
	return mas_preallocate(mas, entry, GFP_KERNEL);
}

/*
 * Take what is shared of the range away from the host, in all processes.  If
 * somebody has kept a reference, the mappings are gone all the same; they can be
 * faulted in again.
 */
int kvm_gmem_revoke_host_access(struct inode *inode, pgoff_t start, pgoff_t end,
				pgoff_t *err_index)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, start, start);
	enum lru_cache_drained drained = LRU_CACHE_NOT_DRAINED;
	void *entry;
	int r;

	unmap_mapping_pages(inode->i_mapping, start, end - start, false);

	mas_for_each(&mas, entry, end - 1) {
		if (xa_to_value(entry) & KVM_MEMORY_ATTRIBUTE_PRIVATE)
			continue;

		r = kvm_gmem_check_references(inode->i_mapping, max(start, mas.index),
					      min(end, mas.last + 1), &drained, err_index);
		if (r)
			return r;
	}

	return 0;
}

/*
 * Make the memory accessible to the host again, as far as there is any.  Called
 * during an invalidation, when no vCPU can get at the memory, i.e. too late to
 * fail: an architecture whose page stays private has to complain by itself.
 */
static void kvm_gmem_grant_host_access(struct kvm *kvm, struct inode *inode,
				       pgoff_t start, pgoff_t end)
{
#ifdef CONFIG_HAVE_KVM_ARCH_GMEM_CONVERT
	struct folio_batch fbatch;
	pgoff_t next = start;
	unsigned int i;

	if (!kvm_arch_has_gmem_convert(kvm))
		return;

	folio_batch_init(&fbatch);
	while (filemap_get_folios(inode->i_mapping, &next, end - 1, &fbatch)) {
		for (i = 0; i < folio_batch_count(&fbatch); i++) {
			struct folio *folio = fbatch.folios[i];
			pgoff_t first = max(start, folio->index);
			pgoff_t last = min(end, folio_next_index(folio));

			kvm_arch_gmem_make_shared(folio_pfn(folio) + first - folio->index,
						  last - first);
		}

		folio_batch_release(&fbatch);
		cond_resched();
	}
#endif
}

/*
 * Give the pages of [@start, @end) the attributes @attrs, all of them or none.
 * @err_index is where, if an error is returned.
 */
static int kvm_gmem_convert(struct kvm *kvm, struct inode *inode, pgoff_t start,
			    pgoff_t end, u64 attrs, pgoff_t *err_index)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, start, end - 1);
	const bool to_private = attrs & KVM_MEMORY_ATTRIBUTE_PRIVATE;
	void *entry = xa_mk_value(attrs);
	int r = 0;

	filemap_invalidate_lock(inode->i_mapping);

	if (kvm_gmem_range_has_attributes(inode, start, end, entry))
		goto out_unlock;

	*err_index = start;
	r = kvm_gmem_prealloc_attributes(&mas, entry);
	if (r)
		goto out_unlock;

	r = kvm_gmem_begin_conversion(inode, start, end, to_private, err_index);
	if (r) {
		mas_destroy(&mas);
		goto out_unlock;
	}

	if (!to_private)
		kvm_gmem_grant_host_access(kvm, inode, start, end);

	mas_store_prealloc(&mas, entry);

	kvm_gmem_end_conversion(inode, start, end);
out_unlock:
	filemap_invalidate_unlock(inode->i_mapping);
	trace_kvm_gmem_convert(inode, start, end, attrs, r);
	return r;
}

/*
 * The attributes that guest_memfd tracks for @kvm, or for any VM if @kvm is NULL.
 */
u64 kvm_gmem_supported_attributes(struct kvm *kvm)
{
	if (!gmem_in_place_conversion || (kvm && !kvm_arch_has_private_mem(kvm)))
		return 0;

	return KVM_MEMORY_ATTRIBUTE_PRIVATE;
}

static bool kvm_gmem_attributes_are_valid(struct kvm *kvm, struct inode *inode,
					  const struct kvm_memory_attributes2 *attrs)
{
	u64 supported = kvm_gmem_supported_attributes(kvm);

	if (attrs->flags || memchr_inv(attrs->reserved, 0, sizeof(attrs->reserved)))
		return false;

	if (!supported || attrs->attributes & ~supported)
		return false;

	if (!attrs->size || attrs->offset + attrs->size < attrs->offset)
		return false;

	if (!PAGE_ALIGNED(attrs->offset) || !PAGE_ALIGNED(attrs->size))
		return false;

	return attrs->offset + attrs->size <= i_size_read(inode);
}

/*
 * What both versions of the structure have is at the same place, so that the
 * second one can serve VMs, too, if that is ever wanted.
 */
static_assert(offsetof(struct kvm_memory_attributes, address) ==
	      offsetof(struct kvm_memory_attributes2, address));
static_assert(offsetof(struct kvm_memory_attributes, size) ==
	      offsetof(struct kvm_memory_attributes2, size));
static_assert(offsetof(struct kvm_memory_attributes, attributes) ==
	      offsetof(struct kvm_memory_attributes2, attributes));
static_assert(offsetof(struct kvm_memory_attributes, flags) ==
	      offsetof(struct kvm_memory_attributes2, flags));

/* KVM_SET_MEMORY_ATTRIBUTES2 on a file of @inode that belongs to @kvm. */
long kvm_gmem_ioctl_set_attributes(struct kvm *kvm, struct inode *inode,
				   struct kvm_memory_attributes2 __user *uattrs)
{
	struct kvm_memory_attributes2 attrs;
	pgoff_t start, end, err_index;
	int r;

	if (copy_from_user(&attrs, uattrs, sizeof(attrs)))
		return -EFAULT;

	if (!kvm_gmem_attributes_are_valid(kvm, inode, &attrs))
		return -EINVAL;

	start = attrs.offset >> PAGE_SHIFT;
	end = start + (attrs.size >> PAGE_SHIFT);

	/* An attribute word is stored as a value entry. */
	BUILD_BUG_ON(sizeof(attrs.attributes) != sizeof(unsigned long));

	r = kvm_gmem_convert(kvm, inode, start, end, attrs.attributes, &err_index);
	if (r && put_user((u64)err_index << PAGE_SHIFT, &uattrs->error_offset))
		return -EFAULT;

	return r;
}
