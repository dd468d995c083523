/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How guest_memfd_conversion_stress looks at its files: through the eyes of the host
 * and the guest, who run the same code, and by what the kernel tells of them.
 */
#ifndef SELFTEST_KVM_GMEM_STRESS_ACCESS_H
#define SELFTEST_KVM_GMEM_STRESS_ACCESS_H

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

#include "gmem_stress_model.h"

enum look {
	/* The page has what the model says. */
	LOOK_CHECK,
	/* The page has something that once was written to it, or nothing. */
	LOOK_PEEK,
	/* Only write. */
	LOOK_AWAY,
};

/* What to do with @nr pages, one after the other. */
struct visit {
	u64 look;
	u64 nr;
	/* If not zero, write that. */
	u64 gen;
	u64 tag;
	/* Of the first page, in the visitor's address space. */
	u64 *page;
	u32 *gens;

	/* How far it got, what was in that page, and whether that was right. */
	u64 nr_done;
	u64 val;
	bool is_wrong;
};

static inline struct visit new_visit(struct stress_file *f, enum look look,
				     struct range r, u32 gen)
{
	return (struct visit) {
		.look = look,
		.nr = range_nr(r),
		.gen = gen,
		.tag = page_tag(f, r.first),
	};
}

static inline bool look_at_page(struct visit *v, u64 *page)
{
	u64 tag = v->tag + v->nr_done;

	v->val = READ_ONCE(*page);
	if (v->look == LOOK_PEEK)
		v->is_wrong = v->val && v->val >> 32 != tag;
	else
		v->is_wrong = v->val != stamp(tag, v->gens[v->nr_done]);
	return !v->is_wrong;
}

/* For the host, SIGBUS may be the end of it: what it has done must be in memory. */
static noinline void visit_pages(struct visit *v)
{
	u64 *page = v->page;

	for (; v->nr_done < v->nr; WRITE_ONCE(v->nr_done, v->nr_done + 1)) {
		if (v->look != LOOK_AWAY && !look_at_page(v, page))
			return;
		if (v->gen)
			WRITE_ONCE(*page, stamp(v->tag + v->nr_done, v->gen));
		page += PAGE_SIZE / sizeof(*page);
	}
}

/* Of each vCPU, in the guest's copy. */
static struct visit guest_visits[MAX_WORKERS];

static void guest_code(u64 id)
{
	for (;;) {
		visit_pages(&guest_visits[id]);
		GUEST_SYNC(0);
	}
}

static __thread sigjmp_buf sigbus_jmpbuf;
static __thread bool is_visiting;

/* Where nobody expects it, the access is repeated, and kills the test. */
static void handle_sigbus(int signum)
{
	if (!READ_ONCE(is_visiting)) {
		signal(SIGBUS, SIG_DFL);
		return;
	}
	siglongjmp(sigbus_jmpbuf, 1);
}

static inline void catch_sigbus(void)
{
	struct sigaction sa = { .sa_handler = handle_sigbus, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
}

static inline void check_visit(struct worker *w, struct stress_file *f, struct range r,
			       struct visit *v, const char *who)
{
	u64 pgoff = r.first + v->nr_done;

	/* Where the visit is done, there may be no page any more. */
	if (!v->is_wrong)
		return;
	CHECK(w, f, false, "The %s found 0x%lx in page %lu, last written were 0x%lx",
	      who, (u64)v->val, pgoff, stamp(page_tag(f, pgoff), f->gens[pgoff]));
}

/* Up to the first page that gives SIGBUS; returns how many these are. */
static inline u64 host_visit(struct worker *w, struct stress_file *f, struct range r,
			     struct visit v)
{
	struct visit *visit = &v;

	v.page = (u64 *)(f->mem + r.first * PAGE_SIZE);
	v.gens = f->gens + r.first;

	WRITE_ONCE(is_visiting, true);
	if (!sigsetjmp(sigbus_jmpbuf, 0))
		visit_pages(visit);
	WRITE_ONCE(is_visiting, false);

	check_visit(w, f, r, visit, "host");
	return READ_ONCE(visit->nr_done);
}

/*
 * Returns false as long as the guest isn't done, as there is no memslot or no file:
 * it reads zero in place of what isn't there, or tries again.
 */
static inline bool enter_guest(struct worker *w, struct stress_file *f)
{
	struct kvm_run *run = w->vcpu->run;
	struct ucall uc;

	if (_vcpu_run(w->vcpu)) {
		CHECK(w, f, errno == EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT,
		      "Expected a memory fault, if any, got %s (%s)",
		      exit_reason_str(run->exit_reason), strerror(errno));
		sched_yield();
		return false;
	}
	if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write) {
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		return false;
	}

	CHECK(w, f, get_ucall(w->vcpu, &uc) == UCALL_SYNC, "Unexpected exit: %s",
	      exit_reason_str(run->exit_reason));
	return true;
}

static inline void guest_visit(struct worker *w, struct stress_file *f, struct range r,
			       struct visit v)
{
	struct timespec start;

	v.page = (u64 *)(f->gpa + r.first * PAGE_SIZE);
	v.gens = (u32 *)f->gens_gva + r.first;
	*w->guest_visit = v;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!enter_guest(w, f)) {
		CHECK(w, f, v.look == LOOK_PEEK, "Page %lu is missing: %s",
		      r.first + w->guest_visit->nr_done,
		      exit_reason_str(w->vcpu->run->exit_reason));
		CHECK(w, f, timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
		      "Page %lu stays missing", r.first + w->guest_visit->nr_done);
		w->nr_missing++;
	}

	check_visit(w, f, r, w->guest_visit, "guest");
	CHECK(w, f, w->guest_visit->nr_done == v.nr, "The guest did %lu pages of %lu",
	      (u64)w->guest_visit->nr_done, (u64)v.nr);
}

/* What fdinfo says of a file, in 4K pages. */
struct gmem_info {
	u64 page_size, allocated, private, shared;
	/* In folios of any order, and in those of the largest. */
	u64 in_folios, in_whole;
};

static inline void parse_folios(struct gmem_info *info, char *p)
{
	u64 order, nr;
	int len;

	for (; sscanf(p, "%lu:%lu%n", &order, &nr, &len) == 2; p += len) {
		info->in_folios += nr << order;
		if (BIT_ULL(order) == info->page_size)
			info->in_whole += nr << order;
	}
}

static inline struct gmem_info read_fdinfo(struct stress_file *f)
{
	struct gmem_info info = {};
	char line[512], name[32];
	int len;
	u64 kb;
	FILE *file;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", f->fd);
	file = fopen(line, "r");
	TEST_ASSERT(file, "Error opening '%s'", line);
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "gmem-folios:", strlen("gmem-folios:")))
			parse_folios(&info, line + strlen("gmem-folios:"));
		if (sscanf(line, "gmem-%31[a-z-]:%lu kB%n", name, &kb, &len) != 2)
			continue;
		if (!strcmp(name, "page-size"))
			info.page_size = kb / 4;
		else if (!strcmp(name, "allocated"))
			info.allocated = kb / 4;
		else if (!strcmp(name, "private"))
			info.private = kb / 4;
		else if (!strcmp(name, "shared"))
			info.shared = kb / 4;
	}
	fclose(file);
	return info;
}

/* That holds no matter what others are doing. */
static inline struct gmem_info check_fdinfo(struct worker *w, struct stress_file *f)
{
	struct gmem_info info = read_fdinfo(f);

	CHECK(w, f, info.page_size == page_nr(f), "Expected a page size of %lu, got %lu",
	      page_nr(f), info.page_size);
	CHECK(w, f, info.private + info.shared == f->nr_pages,
	      "Expected a sum of %lu, got %lu private pages and %lu shared ones",
	      f->nr_pages, info.private, info.shared);
	CHECK(w, f, info.allocated <= f->nr_pages && info.allocated % page_nr(f) == 0,
	      "Expected whole pages, up to %lu, got %lu", f->nr_pages, info.allocated);
	if (is_hugetlb(f))
		CHECK(w, f, info.allocated <= info.in_folios && info.in_folios <= f->nr_pages,
		      "Expected %lu pages in folios, found %lu", info.allocated,
		      info.in_folios);
	return info;
}

/* That needs all of the file to be locked; peeks may only allocate. */
static inline struct gmem_info check_locked_fdinfo(struct worker *w,
						   struct stress_file *f)
{
	struct gmem_info info = check_fdinfo(w, f);
	u64 private = nr_private(f, whole_file(f));

	CHECK(w, f, info.private == private, "Expected %lu private pages, got %lu",
	      private, info.private);
	CHECK(w, f, info.allocated >= nr_present(f, false),
	      "Expected %lu pages or more, got %lu", nr_present(f, false), info.allocated);
	return info;
}

#endif /* SELFTEST_KVM_GMEM_STRESS_ACCESS_H */
