// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test guests that run on a guest_memfd from the HugeTLB pool: what the guest
 * finds in its memory, how large KVM maps it, and that no fault fails for lack
 * of a page that the file has reserved.  See guest_memfd_hugetlb_test for the
 * file's own interface.
 */
#include <linux/sizes.h>

#include "gmem_job.h"
#include "gmem_test.h"
#include "hugetlb_ledger.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define SLOT		10

/* The guest can address two pages of the largest size, at BASE_GPA. */
#define WINDOW		(2UL * SZ_1G)

/* Zeroing gigabytes on an emulated host with a debug kernel takes its time. */
#define TIMEOUT_SECONDS	180
#define TEST_MAP(name)	TEST_F_TIMEOUT(gmem_map, name, TIMEOUT_SECONDS)

/* Visits all 4K pages, each at another place. */
#define DRIFT		(SZ_4K - sizeof(u64))

FIXTURE(gmem_map)
{
	struct hugetlb_ledger ledger;
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(gmem_map)
{
	u64 flags;
	size_t page_size;
	u64 vm_type;
	int nr_races;
};

#define SHARED_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

FIXTURE_VARIANT_ADD(gmem_map, 2M_mmap)
{
	.flags = GUEST_MEMFD_FLAG_HUGETLB_2M | GUEST_MEMFD_FLAG_MMAP,
	.page_size = SZ_2M,
	.nr_races = 100,
};

FIXTURE_VARIANT_ADD(gmem_map, 2M_init_shared)
{
	.flags = GUEST_MEMFD_FLAG_HUGETLB_2M | SHARED_FLAGS,
	.page_size = SZ_2M,
	.nr_races = 100,
};

FIXTURE_VARIANT_ADD(gmem_map, 2M_private)
{
	.flags = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.page_size = SZ_2M,
	.vm_type = KVM_X86_SW_PROTECTED_VM,
	.nr_races = 100,
};

FIXTURE_VARIANT_ADD(gmem_map, 1G_init_shared)
{
	.flags = GUEST_MEMFD_FLAG_HUGETLB_1G | SHARED_FLAGS,
	.page_size = SZ_1G,
	.nr_races = 2,
};

FIXTURE_VARIANT_ADD(gmem_map, 1G_private)
{
	.flags = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.page_size = SZ_1G,
	.vm_type = KVM_X86_SW_PROTECTED_VM,
	.nr_races = 2,
};

#define PAGE		(variant->page_size)
#define IS_1G		(variant->page_size == SZ_1G)
#define IS_PRIVATE	(variant->vm_type == KVM_X86_SW_PROTECTED_VM)

#define EXPECT_LEDGER(held, allocated)	\
	EXPECT_BALANCE(&self->ledger, held, allocated)

FIXTURE_SETUP(gmem_map)
{
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = variant->vm_type,
	};
	u64 flags;
	int i;

	if (IS_PRIVATE && !(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(variant->vm_type)))
		SKIP(return, "KVM has no VMs with software-protected memory");

	self->vm = __vm_create_with_vcpus(shape, 2, 0, guest_code, self->vcpus);
	flags = vm_check_cap(self->vm, KVM_CAP_GUEST_MEMFD_FLAGS);
	if ((flags & variant->flags) != variant->flags)
		SKIP(return, "KVM can't create a guest_memfd with these flags");

	if (hugetlb_pool_grow(PAGE, 2) < 2)
		SKIP(return, "The pool doesn't have two available pages");

	/* Large pages of the guest's own keep its page tables out of the way. */
	virt_map_level(self->vm, BASE_GPA, BASE_GPA, WINDOW, PG_LEVEL_2M);
	for (i = 0; i < 2; i++) {
		vcpu_args_set(self->vcpus[i], 1, (u64)i);
		guest_run(self->vcpus[i]);
	}

	hugetlb_ledger_open(&self->ledger, PAGE);
}

/* In the parent: it restores the pool even if the test was killed. */
FIXTURE_TEARDOWN_PARENT(gmem_map)
{
	EXPECT_LEDGER(0, 0);
	hugetlb_ledger_close(&self->ledger);
}

static int create(struct kvm_vm *vm, const FIXTURE_VARIANT(gmem_map) * variant,
		  long nr_pages)
{
	return vm_create_guest_memfd(vm, nr_pages * PAGE, variant->flags);
}

/*
 * Memory at BASE_GPA + @gpa_off from @fd at @fd_off.  Its userspace address is
 * nobody else's, or KVM would unmap what the host does elsewhere.  What a VM
 * with private memory shares is there, and the address has to be congruent with
 * the gpa for KVM to map any of it large; otherwise it is an empty promise.
 */
static char *bind_slot(struct kvm_vm *vm, int fd, u64 gpa_off, u64 fd_off, u64 len,
		       u64 hva_off)
{
	bool is_private = vm->type == KVM_X86_SW_PROTECTED_VM;
	char *mem;

	mem = kvm_mmap(WINDOW + SZ_1G, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	mem = align_ptr_up(mem, SZ_1G) + (is_private ? gpa_off : hva_off);

	vm_set_user_memory_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, BASE_GPA + gpa_off,
				   len, mem, fd, fd_off);
	if (is_private)
		vm_mem_set_private(vm, BASE_GPA + gpa_off, len);
	return mem;
}

static void unbind_slot(struct kvm_vm *vm)
{
	vm_set_user_memory_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, 0, 0, NULL, -1, 0);
}

#define EXPECT_LEAVES(nr_1g, nr_2m)				\
do {								\
	EXPECT_EQ((nr_1g), vm_get_stat(self->vm, pages_1g));	\
	EXPECT_EQ((nr_2m), vm_get_stat(self->vm, pages_2m));	\
} while (0)

#define EXPECT_HUGE_LEAVES(nr)						\
do {									\
	u64 __nr = (nr);						\
									\
	EXPECT_LEAVES(IS_1G ? __nr : 0, IS_1G ? 0 : __nr);		\
} while (0)

/* A guest uses every 4K of a gigabyte, or of as much as the pool has. */
TEST_MAP(write_and_read_all)
{
	u64 pages_4k = vm_get_stat(self->vm, pages_4k);
	long wanted = SZ_1G / PAGE;
	long nr = min(wanted, hugetlb_pool_grow(PAGE, wanted));
	int fd;

	self->ledger.base = hugetlb_pool_read(PAGE);
	fd = create(self->vm, variant, nr);
	bind_slot(self->vm, fd, 0, 0, nr * PAGE, 0);
	EXPECT_LEDGER(nr, 0);

	vcpu_do(self->vcpus[0], GUEST_WRITE, 0, nr * PAGE, SZ_4K, 1);
	EXPECT_LEDGER(nr, nr);
	EXPECT_HUGE_LEAVES(nr);
	vcpu_do(self->vcpus[1], GUEST_CHECK, 0, nr * PAGE, SZ_4K, 1);
	EXPECT_HUGE_LEAVES(nr);

	/* Some of the guest's page tables may have been touched since. */
	EXPECT_GT(pages_4k + 16, vm_get_stat(self->vm, pages_4k));

	close(fd);
	EXPECT_LEDGER(0, 0);
	EXPECT_LEAVES(0, 0);
}

TEST_MAP(zero_on_first_touch)
{
	u64 stride = IS_1G ? DRIFT : sizeof(u64);
	int fd, memfd;
	char *mem;

	/* The pool hands out first what it got back last, on each node. */
	pin_self_to_any_cpu();
	memfd = hugetlb_pool_memfd(PAGE, 1);
	mem = kvm_mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd);
	memset(mem, 0xaa, PAGE);
	kvm_munmap(mem, PAGE);
	close(memfd);

	fd = create(self->vm, variant, 1);
	bind_slot(self->vm, fd, 0, 0, PAGE, 0);
	vcpu_do(self->vcpus[0], GUEST_CHECK_ZERO, 0, PAGE, stride, 0);
	EXPECT_LEDGER(1, 1);
	vcpu_do(self->vcpus[0], GUEST_WRITE, 0, PAGE, stride, 1);

	/* The guest's own data is gone as well. */
	kvm_fallocate(fd, PUNCH, 0, PAGE);
	EXPECT_LEDGER(1, 0);
	EXPECT_LEAVES(0, 0);
	kvm_fallocate(fd, ALLOCATE, 0, PAGE);
	EXPECT_LEDGER(1, 1);
	EXPECT_LEAVES(0, 0);
	vcpu_do(self->vcpus[0], GUEST_CHECK_ZERO, 0, PAGE, stride, 0);
	EXPECT_LEDGER(1, 1);
	EXPECT_HUGE_LEAVES(1);
}

/*
 * The same file seen through all kinds of slots.  Only where gfn and offset
 * are congruent can a page be mapped whole; the contents are always the same.
 */
TEST_MAP(alignment)
{
	const struct {
		u64 gpa_off, fd_off, hva_off;
		/* Leaves of the file's page size, and 2M leaves of a 1G file. */
		long nr_whole, nr_2m;
	} slots[] = {
		{ 0, 0, 0, 2, 0 },
		/* It begins inside a page. */
		{ SZ_4K, SZ_4K, SZ_4K, 1, 511 },
		{ SZ_2M, SZ_2M, SZ_2M, 1, 511 },
		/* The address doesn't matter, as no memory is there. */
		{ SZ_4K, SZ_4K, SZ_2M, 1, 511 },
		{ 0, 0, SZ_4K, 2, 0 },
		{ 0, SZ_4K, 0, 0, 0 },
		{ SZ_4K, 0, SZ_4K, 0, 0 },
		{ 0, SZ_2M, 0, IS_1G ? 0 : 1, 1023 },
		{ SZ_2M, 0, SZ_2M, IS_1G ? 0 : 1, 1023 },
	};
	u64 stride = IS_1G ? SZ_2M : SZ_4K;
	int i, fd = create(self->vm, variant, 2);
	u64 len, nr_1g, nr_2m;

	bind_slot(self->vm, fd, 0, 0, 2 * PAGE, 0);
	vcpu_do(self->vcpus[0], GUEST_WRITE, 0, 2 * PAGE, SZ_4K, 1);
	unbind_slot(self->vm);

	for (i = 0; i < ARRAY_SIZE(slots); i++) {
		len = 2 * PAGE - max(slots[i].gpa_off, slots[i].fd_off);
		bind_slot(self->vm, fd, slots[i].gpa_off, slots[i].fd_off, len, slots[i].hva_off);
		vcpu_do(self->vcpus[0], GUEST_CHECK, slots[i].gpa_off, len, stride,
			1 + slots[i].fd_off);

		nr_1g = IS_1G ? slots[i].nr_whole : 0;
		nr_2m = IS_1G ? slots[i].nr_2m : slots[i].nr_whole;
		EXPECT_EQ(nr_1g, vm_get_stat(self->vm, pages_1g))
			TH_LOG("slot %d of the table", i);
		EXPECT_EQ(nr_2m, vm_get_stat(self->vm, pages_2m))
			TH_LOG("slot %d of the table", i);
		unbind_slot(self->vm);
	}
}

/* The page that both want is the last one of the pool. */
TEST_MAP(vcpus_touch_one_page)
{
	long i, nr = hugetlb_pool_available(PAGE);
	int fd = create(self->vm, variant, nr);
	pthread_t threads[2];
	int v;

	kvm_fallocate(fd, ALLOCATE, PAGE, (nr - 1) * PAGE);
	bind_slot(self->vm, fd, 0, 0, PAGE, 0);

	for (i = 0; i < variant->nr_races && __test_passed(_metadata); i++) {
		EXPECT_LEDGER(nr, nr - 1);
		for (v = 0; v < 2; v++) {
			vcpu_prepare(self->vcpus[v], (struct guest_job) {
				.op = GUEST_WRITE,
				.gpa = BASE_GPA + v * SZ_4K,
				.len = SZ_4K,
				.stride = sizeof(u64),
				.seed = i,
			});
			kvm_pthread_create(&threads[v], NULL, vcpu_thread, self->vcpus[v]);
		}
		for (v = 0; v < 2; v++)
			kvm_pthread_join(threads[v], NULL);

		EXPECT_LEDGER(nr, nr);
		EXPECT_HUGE_LEAVES(1);
		for (v = 0; v < 2; v++)
			vcpu_do(self->vcpus[v], GUEST_CHECK, !v * SZ_4K, SZ_4K,
				sizeof(u64), i);
		kvm_fallocate(fd, PUNCH, 0, PAGE);
	}
}

/* The guest's access that can't be served is repeated when it can. */
TEST_MAP(cgroup_usage_limit)
{
	const struct guest_job job = {
		.op = GUEST_WRITE,
		.gpa = BASE_GPA,
		.len = SZ_4K,
		.stride = SZ_4K,
	};
	int fd = create(self->vm, variant, 1);

	if (!self->ledger.cgroup[0])
		SKIP(return, "No cgroup v2 hierarchy with a hugetlb controller");

	bind_slot(self->vm, fd, 0, 0, PAGE, 0);
	vcpu_prepare(self->vcpus[0], job);
	hugetlb_ledger_set_limit(&self->ledger, "max", 0);
	EXPECT_ERRNO(ENOMEM, __vcpu_run(self->vcpus[0]));
	EXPECT_LEDGER(1, 0);

	hugetlb_ledger_set_limit(&self->ledger, "max", PAGE);
	guest_run(self->vcpus[0]);
	EXPECT_LEDGER(1, 1);
}

TEST_MAP(punch_while_guest_writes)
{
	long nr = hugetlb_pool_available(PAGE);
	int i, fd = create(self->vm, variant, nr);
	struct guest_job *job;
	pthread_t thread;
	u64 count;

	/* The pool has nothing to spare while the page comes and goes. */
	kvm_fallocate(fd, ALLOCATE, PAGE, (nr - 1) * PAGE);
	bind_slot(self->vm, fd, 0, 0, PAGE, 0);

	job = vcpu_prepare(self->vcpus[0], (struct guest_job) {
		.op = GUEST_COUNT,
		.gpa = BASE_GPA + PAGE / 2,
	});
	kvm_pthread_create(&thread, NULL, vcpu_thread, self->vcpus[0]);
	for (i = 0; i < variant->nr_races; i++) {
		kvm_fallocate(fd, PUNCH, 0, PAGE);

		/* Hit the guest's writes and its faults in turn. */
		usleep(kvm_random_u32_in_range(&kvm_rng, 0, PAGE / SZ_16K));
		count = READ_ONCE(job->count);
		while ((i & 1) && READ_ONCE(job->count) < count + 2)
			usleep(10);
	}
	WRITE_ONCE(job->stop, 1);
	kvm_pthread_join(thread, NULL);

	kvm_fallocate(fd, PUNCH, 0, PAGE);
	EXPECT_LEDGER(nr, nr - 1);
	close(fd);
	EXPECT_LEDGER(0, 0);
}

TEST_MAP(close_with_bound_slot)
{
	int fd = create(self->vm, variant, 1);

	bind_slot(self->vm, fd, 0, 0, PAGE, 0);
	vcpu_do(self->vcpus[0], GUEST_WRITE, 0, SZ_4K, SZ_4K, 1);
	EXPECT_LEDGER(1, 1);
	close(fd);
	EXPECT_LEDGER(0, 0);
	EXPECT_LEAVES(0, 0);

	/* The slot is still there, and there is nothing behind it. */
	vcpu_prepare(self->vcpus[0], (struct guest_job) {
		.op = GUEST_CHECK,
		.gpa = BASE_GPA,
		.len = SZ_4K,
		.stride = SZ_4K,
	});
	EXPECT_EQ(-1, _vcpu_run(self->vcpus[0]));
	EXPECT_EQ(EFAULT, errno);
}

TEST_MAP(file_outlives_vm)
{
	int fd = create(self->vm, variant, 2);

	bind_slot(self->vm, fd, 0, 0, 2 * PAGE, 0);
	vcpu_do(self->vcpus[0], GUEST_WRITE, 0, SZ_4K, SZ_4K, 1);
	kvm_vm_free(self->vm);
	EXPECT_LEDGER(2, 1);

	kvm_fallocate(fd, ALLOCATE, 0, 2 * PAGE);
	EXPECT_LEDGER(2, 2);
	kvm_fallocate(fd, PUNCH, 0, PAGE);
	EXPECT_LEDGER(2, 1);
	close(fd);
	EXPECT_LEDGER(0, 0);
}

TEST_MAP(pre_fault)
{
	struct kvm_pre_fault_memory range = {
		.gpa = BASE_GPA,
		.size = 2 * PAGE,
	};
	int r, fd;

	if (!kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY))
		SKIP(return, "KVM can't pre-fault memory");

	fd = create(self->vm, variant, 2);
	bind_slot(self->vm, fd, 0, 0, 2 * PAGE, 0);
	do {
		r = __vcpu_ioctl(self->vcpus[0], KVM_PRE_FAULT_MEMORY, &range);
	} while (range.size && (!r || errno == EINTR || errno == EAGAIN));

	EXPECT_EQ(0, r);
	EXPECT_EQ(0, range.size);
	EXPECT_LEDGER(2, 2);
	EXPECT_HUGE_LEAVES(2);
	vcpu_do(self->vcpus[0], GUEST_CHECK_ZERO, 0, 2 * PAGE, SZ_2M, 0);
	EXPECT_HUGE_LEAVES(2);
}

/* One shared page: its huge page is mapped in smaller pieces, no other one is. */
TEST_MAP(mixed_attributes)
{
	u64 stride = IS_1G ? SZ_2M : SZ_4K, shared_off = PAGE / 2;
	char *mem;
	int fd;

	/* A VM without private memory has nothing to mix. */
	if (!IS_PRIVATE) {
		EXPECT_EQ(0, vm_check_cap(self->vm, KVM_CAP_MEMORY_ATTRIBUTES));
		return;
	}

	fd = create(self->vm, variant, 2);
	mem = bind_slot(self->vm, fd, 0, 0, 2 * PAGE, 0);
	vcpu_do(self->vcpus[0], GUEST_WRITE, 0, 2 * PAGE, stride, 1);
	EXPECT_HUGE_LEAVES(2);

	*(u64 *)(mem + shared_off) = 0x5a5a;
	vm_mem_set_shared(self->vm, BASE_GPA + shared_off, SZ_4K);
	vcpu_do(self->vcpus[0], GUEST_CHECK, 0, shared_off, stride, 1);
	vcpu_do(self->vcpus[0], GUEST_CHECK, shared_off, SZ_4K, SZ_4K, 0x5a5a);
	vcpu_do(self->vcpus[0], GUEST_CHECK, shared_off + stride,
		2 * PAGE - shared_off - stride, stride, 1 + shared_off + stride);
	EXPECT_LEAVES(IS_1G ? 1 : 0, IS_1G ? 511 : 1);
	EXPECT_LEDGER(2, 2);

	vm_mem_set_private(self->vm, BASE_GPA + shared_off, SZ_4K);
	vcpu_do(self->vcpus[0], GUEST_CHECK, 0, 2 * PAGE, stride, 1);
	EXPECT_EQ(0x5a5a, *(u64 *)(mem + shared_off));
	EXPECT_LEDGER(2, 2);
}

TEST_MAP(init_shared)
{
	int fd = __vm_create_guest_memfd(self->vm, PAGE, variant->flags | SHARED_FLAGS);

	/* Two backings: what is shared is never in guest_memfd. */
	if (IS_PRIVATE) {
		EXPECT_EQ(-1, fd);
		EXPECT_EQ(EINVAL, errno);
	} else {
		EXPECT_LE(0, fd);
	}
	EXPECT_LEDGER(IS_PRIVATE ? 0 : 1, 0);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));
	TEST_REQUIRE(hugetlb_pool_exists(SZ_2M));
	__TEST_REQUIRE(get_kvm_param_bool("tdp_mmu"), "KVM maps huge only with the TDP MMU");

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}
