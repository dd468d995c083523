// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test which mappings an in-place conversion of guest_memfd's memory tears down:
 * all that the host and the guest have of its range, wherever they are, and none
 * of anything else.  What can be seen at a page's address is the state of the
 * file: other slots, files and VMs don't matter.
 */
#include "gmem_backing.h"
#include "gmem_conversion.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

/* Emulated hosts and debug kernels are slow. */
#define TIMEOUT_SECONDS	180
#define TEST_MAP(name)	TEST_F_TIMEOUT(gmem_map, name, TIMEOUT_SECONDS)

#define NR_PAGES	4
#define ALL_PAGES	(BIT_ULL(NR_PAGES) - 1)
#define NR_MANY		4096UL

FIXTURE(gmem_map)
{
	struct gmem_conversion t;
};

FIXTURE_VARIANT(gmem_map)
{
	struct gmem_backing backing;
};

FIXTURE_VARIANT_ADD(gmem_map, 4K) { };
FIXTURE_VARIANT_ADD(gmem_map, 2M) { GMEM_2M };
FIXTURE_VARIANT_ADD(gmem_map, 2M_border) { GMEM_2M_BORDER };
FIXTURE_VARIANT_ADD(gmem_map, 1G) { GMEM_1G };
FIXTURE_VARIANT_ADD(gmem_map, 1G_middle) { GMEM_1G_MIDDLE };

FIXTURE_SETUP(gmem_map)
{
	const char *missing = gmem_backing_use(&variant->backing);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(gmem_map)
{
	gmem_backing_finish(&self->t);
}

static struct gmem_conversion *start_filled(struct gmem_conversion *t, u64 nr_pages)
{
	gmem_conversion_init_filled(t, nr_pages * PAGE_SIZE);
	return t;
}

static void unbind(struct gmem_conversion *t)
{
	vm_set_user_memory_region2(t->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD,
				   0, 0, NULL, -1, 0);
}

/* Two pages of the file, at the gpa of guest page @guest_pgoff. */
static void bind_pages(struct gmem_conversion *t, u32 slot, u64 guest_pgoff, u64 pgoff)
{
	vm_set_user_memory_region2(t->vm, slot, KVM_MEM_GUEST_MEMFD,
				   gmem_gpa(t, guest_pgoff), 2 * PAGE_SIZE,
				   t->mem + pgoff * PAGE_SIZE, t->fd,
				   gmem_offset(t, pgoff));
}

TEST_MAP(unmaps_its_range_from_host)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u64 i;

	if (!host_has_pagemap())
		SKIP(return, "No " PAGEMAP_PATH);

	to_private(t, 1, 2);
	for (i = 0; i < NR_PAGES; i++)
		expect_host_mapping(t, i, i == 0 || i == 3);

	to_shared(t, 1, 2);
	for (i = 0; i < NR_PAGES; i++) {
		expect_host_mapping(t, i, i == 0 || i == 3);
		host_access(t, i, VAL(i), VAL(i));
		expect_host_mapping(t, i, true);
	}
}

/* How much of a huge page stays mapped is told by guest_memfd_hugetlb_leaf_test. */
static void expect_guest_keeps(struct gmem_conversion *t, u64 pgoff)
{
	if (gmem_is_huge())
		guest_access(t, pgoff, VAL(pgoff), VAL(pgoff));
	else
		expect_guest_mapping(t, pgoff, VAL(pgoff), true);
}

TEST_MAP(unmaps_its_range_from_guest)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u64 i;

	expect_pages(t, 0);
	to_private(t, 1, 2);
	expect_guest_keeps(t, 0);
	expect_guest_mapping(t, 1, VAL(1), false);
	expect_guest_mapping(t, 2, VAL(2), false);
	expect_guest_keeps(t, 3);

	to_shared(t, 2, 1);
	for (i = 0; i < NR_PAGES; i++)
		expect_guest_mapping(t, i, VAL(i), i != 2);
}

TEST_MAP(repetition_unmaps_nothing)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u64 i;

	if (!host_has_pagemap())
		SKIP(return, "No " PAGEMAP_PATH);

	to_private(t, 2, 2);
	expect_pages(t, BIT(2) | BIT(3));

	to_shared(t, 0, 2);
	to_shared(t, 1, 1);
	to_private(t, 2, 2);
	to_private(t, 2, 1);
	expect_host_mapping(t, 0, true);
	expect_host_mapping(t, 1, true);
	for (i = 0; i < NR_PAGES; i++)
		expect_guest_mapping(t, i, VAL(i), true);
	expect_pages(t, BIT(2) | BIT(3));
}

/* The host is enough to tell; that many runs of the guest would take too long. */
static void odd_pages_to_private(struct gmem_conversion *t)
{
	u64 i;

	for (i = 1; i < NR_MANY; i += 2)
		to_private(t, i, 1);

	for (i = 0; i < NR_MANY; i++) {
		if (i & 1)
			host_faults(t, i);
		else
			host_access(t, i, VAL(i), VAL(i));
	}
}

TEST_MAP(alternating_pages)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_MANY);
	u64 i;

	odd_pages_to_private(t);
	for (i = 1; i < NR_MANY; i += 2)
		to_shared(t, i, 1);
	host_accesses(t, 0, NR_MANY);
}

TEST_MAP(bulk_over_alternating_pages)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_MANY);
	u64 i;

	odd_pages_to_private(t);
	to_private(t, 1, NR_MANY - 2);
	host_accesses(t, 0, 1);
	for (i = 1; i < NR_MANY; i++)
		host_faults(t, i);
	to_shared(t, 0, NR_MANY);

	odd_pages_to_private(t);
	to_shared(t, 2, NR_MANY - 3);
	host_faults(t, 1);
	host_accesses(t, 2, NR_MANY - 3);
	host_faults(t, NR_MANY - 1);
	to_shared(t, 0, NR_MANY);
	host_accesses(t, 0, NR_MANY);
}

/* The guest has page i of the file at page i ^ @swap. */
static void convert_across_slots(struct gmem_conversion *t, u64 swap)
{
	u64 i;

	unbind(t);
	bind_pages(t, GMEM_SLOT, 0 ^ swap, 0);
	bind_pages(t, GMEM_SLOT + 1, 2 ^ swap, 2);
	for (i = 0; i < NR_PAGES; i++)
		guest_access(t, i ^ swap, VAL(i), VAL(i));

	to_private(t, 1, 2);
	host_accesses(t, 0, 1);
	host_faults(t, 1);
	host_faults(t, 2);
	host_accesses(t, 3, 1);
	for (i = 0; i < NR_PAGES; i++)
		expect_guest_mapping(t, i ^ swap, VAL(i), i == 0 || i == 3);

	to_shared(t, 1, 2);
	for (i = 0; i < NR_PAGES; i++) {
		expect_guest_mapping(t, i ^ swap, VAL(i), i == 0 || i == 3);
		host_access(t, i, VAL(i), VAL(i));
	}
}

TEST_MAP(two_slots)
{
	convert_across_slots(start_filled(&self->t, NR_PAGES), 0);
}

TEST_MAP(two_slots_swapped)
{
	convert_across_slots(start_filled(&self->t, NR_PAGES), 2);
}

TEST_MAP(two_vms)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES), other;
	u64 i;

	gmem_conversion_init_filled(&other, t->size);
	expect_pages(&other, 0);

	to_private(t, 0, NR_PAGES);
	expect_pages(t, ALL_PAGES);
	for (i = 0; i < NR_PAGES; i++)
		expect_guest_mapping(&other, i, VAL(i), true);
	expect_pages(&other, 0);

	to_private(&other, 1, 1);
	to_shared(t, 0, NR_PAGES);
	expect_pages(&other, BIT(1));
	expect_pages(t, 0);
	gmem_conversion_free(&other);
}

TEST_MAP(unbound_file)
{
	struct gmem_conversion *t = start_filled(&self->t, 2);

	unbind(t);
	to_private(t, 0, 2);
	host_faults(t, 0);
	host_faults(t, 1);
	to_shared(t, 1, 1);
	host_faults(t, 0);
	host_accesses(t, 1, 1);

	/* The state is that of the file, there is none of the slot. */
	bind_pages(t, GMEM_SLOT, 0, 0);
	expect_pages(t, BIT(0));
}

TEST_MAP(file_without_mmap)
{
	struct gmem_conversion *t = &self->t;

	gmem_conversion_init(t, 2 * PAGE_SIZE, 0, NULL);
	guest_access(t, 0, 0, VAL(0));
	guest_access(t, 1, 0, VAL(1));

	to_shared(t, 0, 1);
	expect_guest_mapping(t, 0, VAL(0), false);
	expect_guest_keeps(t, 1);
	to_private(t, 0, 1);
	expect_guest_mapping(t, 0, VAL(0), false);
	expect_guest_keeps(t, 1);
}

TEST_MAP(vm_is_gone)
{
	struct gmem_conversion *t = start_filled(&self->t, 1), other;

	gmem_conversion_init_filled(&other, t->size);
	kvm_vm_free(other.vm);
	to_private(&other, 0, 1);
	host_faults(&other, 0);
	to_shared(&other, 0, 1);
	host_accesses(&other, 0, 1);
	other.vm = NULL;
	gmem_conversion_free(&other);
}

static void *reserve(size_t size)
{
	return kvm_mmap(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void move_mapping(void *from, size_t size, void *to)
{
	void *mem = mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	TEST_ASSERT(mem == to, "mremap() expected %p, got %p: %s", to, mem,
		    strerror(errno));
}

TEST_MAP(partly_unmapped)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u8 *upper = t->mem + 2 * PAGE_SIZE;
	void *mem;

	kvm_munmap(upper, 2 * PAGE_SIZE);
	to_private(t, 1, 2);
	host_accesses(t, 0, 1);
	host_faults(t, 1);

	mem = mmap(upper, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED_NOREPLACE, t->fd, gmem_offset(t, 2));
	ASSERT_EQ(upper, mem);
	expect_pages(t, BIT(1) | BIT(2));
	to_shared(t, 1, 2);
	expect_pages(t, 0);
}

/* The slot's userspace_addr isn't where the memory is any more. */
TEST_MAP(moved)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u8 *mem = reserve(t->size);

	move_mapping(t->mem, t->size, mem);
	t->mem = mem;
	if (host_has_pagemap())
		expect_host_mapping(t, 1, true);

	to_private(t, 1, 2);
	expect_pages(t, BIT(1) | BIT(2));
	to_shared(t, 1, 1);
	expect_pages(t, BIT(2));
}

/* A second mapping, of which the upper half is moved away. */
TEST_MAP(half_moved)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES), low = *t, high = *t;
	size_t half = t->size / 2;
	u8 *mem = reserve(half);

	low.mem = gmem_mmap(t, t->size);
	host_accesses(&low, 0, 3);
	move_mapping(low.mem + half, half, mem);
	high.mem = mem - half;
	host_accesses(&high, 3, 1);

	to_private(t, 1, 2);
	host_accesses(&low, 0, 1);
	host_faults(&low, 1);
	host_faults(&high, 2);
	host_accesses(&high, 3, 1);
	expect_pages(t, BIT(1) | BIT(2));

	to_shared(t, 1, 2);
	host_accesses(&low, 1, 1);
	host_accesses(&high, 2, 1);
	kvm_munmap(low.mem, half);
	kvm_munmap(mem, half);
}

/* A second mapping of half of the file, extended to all of it. */
TEST_MAP(grown)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES), view = *t;
	u8 *mem = gmem_mmap(t, t->size / 2);
	u64 i;

	view.mem = mem;
	host_accesses(&view, 1, 1);
	view.mem = mremap(mem, t->size / 2, t->size, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, view.mem);
	host_accesses(&view, 0, NR_PAGES);

	to_private(t, 1, NR_PAGES - 1);
	host_accesses(&view, 0, 1);
	for (i = 1; i < NR_PAGES; i++)
		host_faults(&view, i);
	expect_pages(t, ALL_PAGES & ~BIT(0));

	to_shared(t, NR_PAGES - 1, 1);
	host_accesses(&view, NR_PAGES - 1, 1);
	kvm_munmap(view.mem, t->size);
}

static void pre_fault(struct gmem_conversion *t, u64 pgoff, u64 nr_pages)
{
	struct kvm_pre_fault_memory range = {
		.gpa = gmem_gpa(t, pgoff),
		.size = nr_pages * PAGE_SIZE,
	};
	int r, tries = 1000;

	do {
		r = __vcpu_ioctl(t->vcpu, KVM_PRE_FAULT_MEMORY, &range);
	} while (range.size && --tries && (!r || errno == EINTR || errno == EAGAIN));

	TEST_ASSERT(!r && !range.size,
		    "Expected to pre-fault all, 0x%llx bytes are left: r %d, %s",
		    range.size, r, strerror(errno));
}

TEST_MAP(pre_fault_follows_attributes)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u64 i;

	if (!kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY))
		SKIP(return, "KVM can't pre-fault memory");

	/* The guest's own memory isn't pre-faulted. */
	guest_access(t, 0, VAL(0), VAL(0));
	guest_access(t, 0, VAL(0), VAL(0));

	pre_fault(t, 1, 3);
	for (i = 1; i < NR_PAGES; i++)
		expect_guest_mapping(t, i, VAL(i), true);

	to_private(t, 1, 3);
	pre_fault(t, 1, 2);
	expect_guest_mapping(t, 1, VAL(1), true);
	expect_guest_mapping(t, 2, VAL(2), true);
	expect_guest_mapping(t, 3, VAL(3), false);

	to_shared(t, 1, 1);
	pre_fault(t, 1, 3);
	for (i = 1; i < NR_PAGES; i++)
		expect_guest_mapping(t, i, VAL(i), true);
	expect_pages(t, BIT(2) | BIT(3));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	gmem_backing_init();
	return test_harness_run(argc, argv);
}
