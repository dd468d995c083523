/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The files of guest_memfd_conversion_stress come and go, each with a memslot and a
 * mapping; where these are doesn't change.
 */
#ifndef SELFTEST_KVM_GMEM_STRESS_FILE_H
#define SELFTEST_KVM_GMEM_STRESS_FILE_H

#include "gmem_stress_model.h"

static inline u64 draw(struct worker *w, u64 max)
{
	return kvm_random_u32_in_range(&w->rng, 0, max);
}

/* To try again, as somebody else has a page for an instant. */
static inline void wait_a_moment(struct worker *w, struct stress_file *f,
				 struct timespec start)
{
	w->nr_retries[w->op]++;
	CHECK(w, f, timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
	      "No pin explains why this fails all the time: %s", strerror(errno));
	sched_yield();
}

static inline size_t file_size(struct stress_file *f)
{
	return f->nr_pages * PAGE_SIZE;
}

static inline long nr_huge(struct stress_file *f)
{
	return f->nr_pages / page_nr(f);
}

static inline void set_memslot(struct worker *w, struct stress_file *f, size_t size)
{
	vm_set_user_memory_region2(w->stress->vm, GMEM_SLOT + f->id, KVM_MEM_GUEST_MEMFD,
				   f->gpa, size, f->mem, f->fd, 0);
}

static inline void map_file(struct stress_file *f, int prot, int flags, int fd)
{
	void *mem = mmap(f->mem, file_size(f), prot, flags | MAP_FIXED, fd, 0);

	TEST_ASSERT(mem == f->mem, __KVM_SYSCALL_ERROR("mmap()", -1));
}

/* What the last file had comes back as soon as nobody uses it any more. */
static inline int create_file(struct worker *w, struct stress_file *f, u64 flags)
{
	struct timespec start;
	int fd;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		fd = __vm_create_guest_memfd(w->stress->vm, file_size(f),
					     f->page_size_flag | flags);
		if (fd >= 0)
			return fd;
		CHECK(w, f, errno == ENOMEM && is_hugetlb(f), "No new file: %s",
		      strerror(errno));
		wait_a_moment(w, f, start);
	}
}

static inline void open_file(struct worker *w, struct stress_file *f)
{
	bool shared = kvm_random_bool(&w->rng);

	f->fd = create_file(w, f, shared ? GMEM_MMAP_SHARED : GMEM_MMAP_PRIVATE);
	map_file(f, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd);
	set_memslot(w, f, file_size(f));
	memset(f->is_private, !shared, f->nr_pages);
}

/* The file is gone when all that keeps it is, no matter what comes last. */
static inline void close_file(struct worker *w, struct stress_file *f)
{
	int i, first = draw(w, 2), step = draw(w, 1) + 1;

	for (i = 0; i < 3; i++) {
		switch ((first + i * step) % 3) {
		case 0:
			set_memslot(w, f, 0);
			break;
		case 1:
			map_file(f, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
			break;
		case 2:
			kvm_close(f->fd);
		}
	}
	model_truncate(f, whole_file(f));
	set_huge(f, f->was_peeked, whole_file(f), false);
	f->serial++;
}

#endif /* SELFTEST_KVM_GMEM_STRESS_FILE_H */
