/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory of guest_memfd, see virt/kvm/guest_memfd.c.  What becomes of HugeTLB pages in
 * it is told by the events of hugetlb_split.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM guest_memfd

#if !defined(_TRACE_GUEST_MEMFD_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_GUEST_MEMFD_H

#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/tracepoint.h>

/* A folio was missing, and was allocated, maybe by somebody who was faster. */
TRACE_EVENT(kvm_gmem_allocate,

	TP_PROTO(struct inode *inode, struct folio *folio),

	TP_ARGS(inode, folio),

	TP_STRUCT__entry(
		__field(u64,		ino)
		__field(pgoff_t,	index)
		__field(unsigned long,	pfn)
		__field(unsigned int,	order)
	),

	TP_fast_assign(
		__entry->ino	= inode->i_ino;
		__entry->index	= folio->index;
		__entry->pfn	= folio_pfn(folio);
		__entry->order	= folio_order(folio);
	),

	TP_printk("ino=%llu index=0x%lx pfn=0x%lx order=%u",
		  __entry->ino, __entry->index, __entry->pfn, __entry->order)
);

/* KVM_SET_MEMORY_ATTRIBUTES2 for [start, end), in pages, and what came of it. */
TRACE_EVENT(kvm_gmem_convert,

	TP_PROTO(struct inode *inode, pgoff_t start, pgoff_t end, u64 attrs, int result),

	TP_ARGS(inode, start, end, attrs, result),

	TP_STRUCT__entry(
		__field(u64,		ino)
		__field(pgoff_t,	start)
		__field(pgoff_t,	end)
		__field(u64,		attrs)
		__field(int,		result)
	),

	TP_fast_assign(
		__entry->ino	= inode->i_ino;
		__entry->start	= start;
		__entry->end	= end;
		__entry->attrs	= attrs;
		__entry->result	= result;
	),

	TP_printk("ino=%llu start=0x%lx end=0x%lx to=%s result=%d",
		  __entry->ino, __entry->start, __entry->end,
		  __entry->attrs & KVM_MEMORY_ATTRIBUTE_PRIVATE ? "private" : "shared",
		  __entry->result)
);

#endif /* _TRACE_GUEST_MEMFD_H */

#include <trace/define_trace.h>
