// SPDX-License-Identifier: GPL-2.0-only
/*
 * What /proc/PID/fdinfo tells of a guest_memfd.
 *
 * Private and shared add up to the size of the file, allocated or not.  Folios are
 * listed by order, as ORDER:COUNT; struct pages that HVO shares between huge pages
 * are not part of the vmemmap's size.
 */
#include <linux/hugetlb_split.h>
#include <linux/kvm_host.h>
#include <linux/maple_tree.h>
#include <linux/pagemap.h>
#include <linux/seq_file.h>
#include <linux/xarray.h>

#include "guest_memfd.h"

static void kvm_gmem_show_pages(struct seq_file *m, const char *name, u64 nr_pages)
{
	seq_printf(m, "gmem-%s:\t%llu kB\n", name, nr_pages << (PAGE_SHIFT - 10));
}

static pgoff_t kvm_gmem_count_private(struct inode *inode, pgoff_t nr_pages)
{
	MA_STATE(mas, &GMEM_I(inode)->attributes, 0, 0);
	pgoff_t nr = 0;
	void *entry;

	mas_for_each(&mas, entry, nr_pages - 1)
		if (xa_to_value(entry) & KVM_MEMORY_ATTRIBUTE_PRIVATE)
			nr += mas.last - mas.index + 1;

	return nr;
}

static void kvm_gmem_show_folios(struct seq_file *m, struct inode *inode,
				 pgoff_t nr_pages)
{
	struct hugetlb_split_usage usage;
	int order;

	hugetlb_split_usage(inode->i_mapping, 0, nr_pages, &usage);

	kvm_gmem_show_pages(m, "vmemmap", usage.nr_vmemmap);
	seq_puts(m, "gmem-folios:\t");
	for (order = 0; order <= kvm_gmem_order(inode); order++)
		if (usage.nr_folios[order])
			seq_printf(m, "%d:%lu ", order, usage.nr_folios[order]);
	seq_putc(m, '\n');
}

void kvm_gmem_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct inode *inode = file_inode(file);
	pgoff_t nr_pages = i_size_read(inode) >> PAGE_SHIFT;
	pgoff_t nr_private;

	filemap_invalidate_lock_shared(inode->i_mapping);

	nr_private = kvm_gmem_count_private(inode, nr_pages);
	kvm_gmem_show_pages(m, "page-size", kvm_gmem_nr_pages(inode));
	kvm_gmem_show_pages(m, "allocated", inode->i_mapping->nrpages);
	kvm_gmem_show_pages(m, "private", nr_private);
	kvm_gmem_show_pages(m, "shared", nr_pages - nr_private);
	if (kvm_gmem_is_hugetlb(inode))
		kvm_gmem_show_folios(m, inode, nr_pages);

	filemap_invalidate_unlock_shared(inode->i_mapping);
}
