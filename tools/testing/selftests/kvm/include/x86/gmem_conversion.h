/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A VM whose memory at GMEM_GPA is a guest_memfd that is converted in place,
 * for tests that touch single pages from either side:
 *
 *	struct gmem_conversion t;
 *
 *	TEST_REQUIRE(gmem_conversion_supported());
 *	gmem_conversion_init(&t, 4 * PAGE_SIZE, GMEM_MMAP_SHARED, NULL);
 *	host_access(&t, 2, 0, 'a');		(page 2 has 0, write 'a')
 *	to_private(&t, 2, 1);
 *	host_faults(&t, 2);
 *	guest_access(&t, 2, 'a', 'b');
 *	gmem_conversion_free(&t);
 *
 * All pages are of 4K and named by their offset from the first one that the test
 * is about, which is the first one of the file unless gmem_backing says otherwise.
 * The slot has all of the file.  Accesses are to the first byte of a page.  A
 * failed expectation ends the process, as TEST_ASSERT() does.
 *
 * guest_access() needs guest code that calls gmem_guest_access() again and
 * again, which is what NULL for the guest code gives.  The guest has mapped
 * the test's pages, one by one, from the virtual address GMEM_GPA on.  For more
 * vCPUs use vm_vcpu_add(), and guest code of your own: gmem_guest_access() is for
 * one vCPU at a time, as host_faults() is for one thread at a time.
 *
 * expect_private(), expect_shared() and expect_pages() look from both sides.
 * Check host_has_pagemap() before host_has_mapped(), and host_can_pin() before
 * host_pin(), to skip a test where the kernel doesn't have what they need.
 */
#ifndef SELFTEST_KVM_GMEM_CONVERSION_H
#define SELFTEST_KVM_GMEM_CONVERSION_H

#include <linux/sizes.h>

#include "gmem_attributes.h"
#include "guest_run.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

#include "../../../../../../mm/gup_test.h"

#define GMEM_GPA	SZ_4G
#define GMEM_SLOT	10

/* The size of so many pages, or how far one is from the first of them, in bytes. */
#define OFFSET(pgoff)	((u64)(pgoff) * PAGE_SIZE)

#define GMEM_MMAP_PRIVATE	GUEST_MEMFD_FLAG_MMAP
#define GMEM_MMAP_SHARED	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

struct gmem_conversion {
	/* NULL if the test has freed it. */
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	/* -1 after gmem_conversion_free(). */
	int fd;
	/* The test's pages; without GUEST_MEMFD_FLAG_MMAP nothing is there. */
	u8 *mem;
	size_t size;
	/* The index of the first of them in the file. */
	u64 base;
	/* The slot: all of the file, but nothing is there besides the test's pages. */
	u8 *slot_mem;
	size_t file_size;
};

/*
 * What the files of gmem_conversion_init() are made of, and where in them the pages
 * of the test are; gmem_backing.h has variants of tests for that.
 */
struct gmem_backing {
	/* GUEST_MEMFD_FLAG_HUGETLB_2M or _1G, or none for 4K. */
	u64 flag;
	u64 base;
	/* Pages of the pool that have all of their struct pages. */
	bool without_hvo;
};

static struct gmem_backing gmem_backing;

static inline size_t gmem_page_size(u64 gmem_flags)
{
	if (gmem_flags & GUEST_MEMFD_FLAG_HUGETLB_1G)
		return SZ_1G;
	return gmem_flags & GUEST_MEMFD_FLAG_HUGETLB_2M ? SZ_2M : PAGE_SIZE;
}

/* Where a page of the test is in the file, and in guest physical memory. */
static inline u64 gmem_offset(struct gmem_conversion *t, u64 pgoff)
{
	return (t->base + pgoff) * PAGE_SIZE;
}

static inline gpa_t gmem_gpa(struct gmem_conversion *t, u64 pgoff)
{
	return GMEM_GPA + gmem_offset(t, pgoff);
}

/* Map pages of the test once more, beginning with the first one. */
static inline u8 *gmem_mmap(struct gmem_conversion *t, size_t size)
{
	return __kvm_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd,
			  gmem_offset(t, 0));
}

static inline struct vm_shape gmem_conversion_shape(void)
{
	return (struct vm_shape) {
		.mode = VM_MODE_DEFAULT,
		.type = KVM_X86_SW_PROTECTED_VM,
	};
}

static inline bool gmem_conversion_supported(void)
{
	struct kvm_vm *vm;
	bool supported;

	if (!(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM)))
		return false;

	vm = ____vm_create(gmem_conversion_shape());
	supported = vm_has_gmem_attributes(vm);
	kvm_vm_free(vm);
	return supported;
}

/* What guest_access() wants of the guest, in the guest's copy only. */
static struct {
	u64 pgoff;
	u8 expected, new;
} gmem_guest_todo;

static inline void gmem_guest_access(void)
{
	u64 pgoff = READ_ONCE(gmem_guest_todo.pgoff);
	u8 *p = (u8 *)(GMEM_GPA + pgoff * PAGE_SIZE);
	u8 expected = READ_ONCE(gmem_guest_todo.expected), val = READ_ONCE(*p);

	__GUEST_ASSERT(val == expected,
		       "Guest expected 0x%x in page %lu, found 0x%x",
		       expected, pgoff, val);
	WRITE_ONCE(*p, READ_ONCE(gmem_guest_todo.new));
}

static inline void gmem_guest_code(void)
{
	for (;;) {
		gmem_guest_access();
		GUEST_SYNC(0);
	}
}

static inline void gmem_conversion_init(struct gmem_conversion *t, size_t size,
					u64 gmem_flags, void *guest_code)
{
	void *mem;

	gmem_flags |= gmem_backing.flag;
	t->base = gmem_backing.base;
	t->size = size;
	t->file_size = align_up(gmem_offset(t, 0) + size, gmem_page_size(gmem_flags));

	/* The extra pages are those that the guest needs page tables for. */
	t->vm = __vm_create_shape_with_one_vcpu(gmem_conversion_shape(), &t->vcpu,
						size / PAGE_SIZE,
						guest_code ?: gmem_guest_code);
	t->fd = vm_create_guest_memfd(t->vm, t->file_size, gmem_flags);

	/* Should KVM follow a userspace_addr without a file, it finds nothing. */
	t->slot_mem = kvm_mmap(t->file_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	t->mem = t->slot_mem + gmem_offset(t, 0);
	if (gmem_flags & GUEST_MEMFD_FLAG_MMAP) {
		mem = mmap(t->mem, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			   t->fd, gmem_offset(t, 0));
		TEST_ASSERT(mem == t->mem, __KVM_SYSCALL_ERROR("mmap()", -1));
	}

	vm_set_user_memory_region2(t->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD,
				   GMEM_GPA, t->file_size, t->slot_mem, t->fd, 0);
	virt_map(t->vm, GMEM_GPA, gmem_gpa(t, 0), size / PAGE_SIZE);
}

static inline void gmem_conversion_free(struct gmem_conversion *t)
{
	/* The test may have moved its pages. */
	kvm_munmap(t->mem, t->size);
	kvm_munmap(t->slot_mem, t->file_size);
	kvm_close(t->fd);
	t->fd = -1;
	if (t->vm)
		kvm_vm_free(t->vm);
	t->vm = NULL;
}

static inline void to_private(struct gmem_conversion *t, u64 pgoff, u64 nr_pages)
{
	gmem_set_private(t->fd, gmem_offset(t, pgoff), nr_pages * PAGE_SIZE);
}

static inline void to_shared(struct gmem_conversion *t, u64 pgoff, u64 nr_pages)
{
	gmem_set_shared(t->fd, gmem_offset(t, pgoff), nr_pages * PAGE_SIZE);
}

/* In seconds: what is bound to happen has happened by then. */
#define GMEM_PATIENCE	20

/*
 * Make all pages private as soon as pages [@first, @first + @nr), which somebody
 * lets go of, allow it.  Returns how often they didn't.
 */
static inline u64 wait_for_conversion(struct gmem_conversion *t, u64 first, u64 nr)
{
	struct timespec start;
	u64 busy, nr_refused;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (nr_refused = 0;
	     __gmem_set_private(t->fd, gmem_offset(t, 0), t->size, &busy); nr_refused++) {
		TEST_ASSERT(errno == EAGAIN && busy % PAGE_SIZE == 0 &&
			    busy - gmem_offset(t, first) < nr * PAGE_SIZE,
			    "Expected EAGAIN, if anything, for pages [%lu, +%lu), got %s for 0x%lx",
			    first, nr, strerror(errno), busy);
		TEST_ASSERT(timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
			    "Expected the page at 0x%lx to be free by now", busy);
		usleep(10);
	}
	return nr_refused;
}

/* Page @busy is the first one that is in use. */
static inline void expect_eagain(struct gmem_conversion *t, u64 pgoff, u64 nr, u64 busy)
{
	u64 error_offset;
	int r = __gmem_set_private(t->fd, gmem_offset(t, pgoff), nr * PAGE_SIZE,
				   &error_offset);

	TEST_ASSERT(r == -1 && errno == EAGAIN,
		    "Expected EAGAIN for pages [%lu, +%lu), got %s", pgoff, nr,
		    r ? strerror(errno) : "success");
	TEST_ASSERT(error_offset == gmem_offset(t, busy),
		    "Expected EAGAIN for page %lu, got it for offset 0x%lx",
		    busy, error_offset);
}

/* The guest can read and write, whether the page is private or shared. */
static inline void guest_access(struct gmem_conversion *t, u64 pgoff,
				u8 expected, u8 new)
{
	typeof(gmem_guest_todo) todo = {
		.pgoff = pgoff,
		.expected = expected,
		.new = new,
	};

	write_guest_global(t->vm, gmem_guest_todo, todo);
	guest_run(t->vcpu);
}

/* The host can read and write: the page is shared. */
static inline void host_access(struct gmem_conversion *t, u64 pgoff,
			       u8 expected, u8 new)
{
	u8 *p = t->mem + pgoff * PAGE_SIZE, val = READ_ONCE(*p);

	TEST_ASSERT(val == expected,
		    "Host expected 0x%x in page %lu, found 0x%x",
		    expected, pgoff, val);
	WRITE_ONCE(*p, new);
}

/* The host can neither read nor write: the page is private. */
static inline void host_faults(struct gmem_conversion *t, u64 pgoff)
{
	u8 *p = t->mem + pgoff * PAGE_SIZE;

	TEST_EXPECT_SIGBUS((void)READ_ONCE(*p));
	TEST_EXPECT_SIGBUS(WRITE_ONCE(*p, 0xff));
}

/* For both: the page holds @val and is left with @new. */
static inline void expect_private(struct gmem_conversion *t, u64 pgoff,
				  u8 val, u8 new)
{
	host_faults(t, pgoff);
	guest_access(t, pgoff, val, new);
	host_faults(t, pgoff);
}

static inline void expect_shared(struct gmem_conversion *t, u64 pgoff,
				 u8 val, u8 new)
{
	host_access(t, pgoff, val, ~new);
	guest_access(t, pgoff, ~new, new);
	host_access(t, pgoff, new, new);
}

/* What tests that convert many pages have in each of them; never zero. */
#define VAL(pgoff)	((u8)(1 + (pgoff) % 255))

static inline void host_accesses(struct gmem_conversion *t, u64 pgoff,
				 u64 nr_pages)
{
	u64 i;

	for (i = pgoff; i < pgoff + nr_pages; i++)
		host_access(t, i, VAL(i), VAL(i));
}

/* The file starts shared, and the host has all of it mapped. */
static inline void gmem_conversion_init_filled(struct gmem_conversion *t, size_t size)
{
	u64 i;

	gmem_conversion_init(t, size, GMEM_MMAP_SHARED, NULL);
	for (i = 0; i < size / PAGE_SIZE; i++)
		host_access(t, i, 0, VAL(i));
}

/* All pages hold VAL(), and keep it; @private has a bit for each page. */
static inline void expect_pages(struct gmem_conversion *t, u64 private)
{
	u64 i;

	for (i = 0; i < t->size / PAGE_SIZE; i++) {
		if (private & BIT_ULL(i))
			expect_private(t, i, VAL(i), VAL(i));
		else
			expect_shared(t, i, VAL(i), VAL(i));
	}
}

#define PAGEMAP_PATH	"/proc/self/pagemap"

static inline bool host_has_pagemap(void)
{
	return !access(PAGEMAP_PATH, R_OK);
}

/* Whether the host's page table has the page, without touching it. */
static inline bool host_has_mapped(struct gmem_conversion *t, u64 pgoff)
{
	u64 vpn = (unsigned long)t->mem / PAGE_SIZE + pgoff, entry;
	int fd = open(PAGEMAP_PATH, O_RDONLY);
	ssize_t r;

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("open(" PAGEMAP_PATH ")", fd));
	r = pread(fd, &entry, sizeof(entry), vpn * sizeof(entry));
	TEST_ASSERT(r == sizeof(entry), "Expected %ld bytes of %s, read %ld",
		    sizeof(entry), PAGEMAP_PATH, r);
	kvm_close(fd);
	return entry & BIT_ULL(63);
}

static inline void expect_host_mapping(struct gmem_conversion *t, u64 pgoff, bool mapped)
{
	TEST_ASSERT(host_has_mapped(t, pgoff) == mapped,
		    "Expected the host to have page %lu %s", pgoff,
		    mapped ? "mapped" : "unmapped");
}

/*
 * Whether KVM has to map anything for the guest to access the page.  Before it
 * tells, the guest must have run twice: its own memory has been mapped then.
 */
static inline void expect_guest_mapping(struct gmem_conversion *t, u64 pgoff,
					u8 val, bool mapped)
{
	u64 before = vcpu_get_stat(t->vcpu, pf_fixed), nr_faults;

	guest_access(t, pgoff, val, val);
	nr_faults = vcpu_get_stat(t->vcpu, pf_fixed) - before;
	TEST_ASSERT(!nr_faults == mapped,
		    "Expected the guest to have page %lu %s, it took %lu faults",
		    pgoff, mapped ? "mapped" : "unmapped", nr_faults);
}

#define GUP_TEST_PATH	"/sys/kernel/debug/gup_test"

static inline bool host_can_pin(void)
{
	return !access(GUP_TEST_PATH, F_OK);
}

/* The pin lasts until host_unpin(), or the end of the process. */
static inline int host_pin(struct gmem_conversion *t, u64 pgoff, u64 nr_pages)
{
	struct pin_longterm_test pin = {
		.addr = (unsigned long)t->mem + pgoff * PAGE_SIZE,
		.size = nr_pages * PAGE_SIZE,
	};
	int r, fd = open(GUP_TEST_PATH, O_RDWR);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("open(" GUP_TEST_PATH ")", fd));
	r = ioctl(fd, PIN_LONGTERM_TEST_START, &pin);
	TEST_ASSERT(!r, KVM_IOCTL_ERROR(PIN_LONGTERM_TEST_START, r));
	return fd;
}

static inline void host_unpin(int fd)
{
	int r = ioctl(fd, PIN_LONGTERM_TEST_STOP);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(PIN_LONGTERM_TEST_STOP, r));
	kvm_close(fd);
}

#endif /* SELFTEST_KVM_GMEM_CONVERSION_H */
