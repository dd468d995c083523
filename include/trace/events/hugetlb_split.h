/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HugeTLB pages that are split into pieces, see mm/hugetlb_split.c.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hugetlb_split

#if !defined(_TRACE_HUGETLB_SPLIT_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_HUGETLB_SPLIT_H

#include <linux/tracepoint.h>

/* A huge page or a piece was cut around some of its pages. */
TRACE_EVENT(hugetlb_split,

	TP_PROTO(unsigned long pfn, unsigned long nr, unsigned long start, unsigned long end),

	TP_ARGS(pfn, nr, start, end),

	TP_STRUCT__entry(
		__field(unsigned long,	pfn)
		__field(unsigned long,	nr)
		__field(unsigned long,	start)
		__field(unsigned long,	end)
	),

	TP_fast_assign(
		__entry->pfn	= pfn;
		__entry->nr	= nr;
		__entry->start	= start;
		__entry->end	= end;
	),

	TP_printk("pfn=0x%lx nr=%lu start=%lu end=%lu",
		  __entry->pfn, __entry->nr, __entry->start, __entry->end)
);

DECLARE_EVENT_CLASS(hugetlb_piece,

	TP_PROTO(unsigned long pfn, unsigned int order),

	TP_ARGS(pfn, order),

	TP_STRUCT__entry(
		__field(unsigned long,	pfn)
		__field(unsigned int,	order)
	),

	TP_fast_assign(
		__entry->pfn	= pfn;
		__entry->order	= order;
	),

	TP_printk("pfn=0x%lx order=%u", __entry->pfn, __entry->order)
);

/* Pieces became one. */
DEFINE_EVENT(hugetlb_piece, hugetlb_merge,
	TP_PROTO(unsigned long pfn, unsigned int order),
	TP_ARGS(pfn, order)
);

/* A piece has left the page cache, and waits for its last reference to go. */
DEFINE_EVENT(hugetlb_piece, hugetlb_piece_park,
	TP_PROTO(unsigned long pfn, unsigned int order),
	TP_ARGS(pfn, order)
);

/* A piece has come home. */
DEFINE_EVENT(hugetlb_piece, hugetlb_piece_release,
	TP_PROTO(unsigned long pfn, unsigned int order),
	TP_ARGS(pfn, order)
);

/* All pieces have, and the page goes back to the pool. */
DEFINE_EVENT(hugetlb_piece, hugetlb_rejoin,
	TP_PROTO(unsigned long pfn, unsigned int order),
	TP_ARGS(pfn, order)
);

#endif /* _TRACE_HUGETLB_SPLIT_H */

#include <trace/define_trace.h>
