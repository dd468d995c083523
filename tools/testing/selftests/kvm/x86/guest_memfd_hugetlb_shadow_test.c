// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test guest_memfd on HugeTLB pages with guests that map it with smaller pages than it
 * has.  With shadow paging (kvm_amd.npt=0, kvm_intel.ept=0) what the guest maps limits
 * what KVM maps; with nested paging nothing of that matters.
 *
 * At userspace_addr is other memory, which the guest must never see.
 */
#include <linux/sizes.h>

#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

#define GPA		SZ_4G
#define SLOT		10
/* As much of the file as a guest on shadow pages touches in seconds. */
#define TOUCHED		SZ_4M
#define DECOY		0xcc

FIXTURE(gmem_shadow)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	size_t size;
	void *decoy;
	int fd;
};

FIXTURE_VARIANT(gmem_shadow)
{
	size_t page_size;
	u64 flag;
	int guest_level;
};

FIXTURE_VARIANT_ADD(gmem_shadow, 2M_by_4K)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.guest_level = PG_LEVEL_4K,
};

FIXTURE_VARIANT_ADD(gmem_shadow, 2M_by_2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.guest_level = PG_LEVEL_2M,
};

FIXTURE_VARIANT_ADD(gmem_shadow, 1G_by_4K)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.guest_level = PG_LEVEL_4K,
};

FIXTURE_VARIANT_ADD(gmem_shadow, 1G_by_2M)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.guest_level = PG_LEVEL_2M,
};

static void guest_code(void)
{
	u64 gva;

	for (gva = GPA; gva < GPA + TOUCHED; gva += PAGE_SIZE)
		WRITE_ONCE(*(u64 *)gva, gva);
	GUEST_SYNC(0);

	for (gva = GPA; gva < GPA + TOUCHED; gva += PAGE_SIZE)
		GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)gva), gva);
	GUEST_DONE();
}

static void set_memslot(struct kvm_vm *vm, size_t size, void *decoy, int fd)
{
	vm_set_user_memory_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, GPA, size, decoy, fd, 0);
}

FIXTURE_SETUP(gmem_shadow)
{
	size_t size = max_t(size_t, TOUCHED, variant->page_size);
	const long nr = size / variant->page_size;

	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, nr) < nr)
		SKIP(return, "The pool hasn't got %ld pages of %zu bytes", nr, variant->page_size);

	self->vm = vm_create_with_one_vcpu(&self->vcpu, guest_code);
	self->fd = vm_create_guest_memfd(self->vm, size, variant->flag | GUEST_MEMFD_FLAG_MMAP |
					 GUEST_MEMFD_FLAG_INIT_SHARED);
	self->size = size;
	self->decoy = kvm_mmap(size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	memset(self->decoy, DECOY, TOUCHED);
	set_memslot(self->vm, size, self->decoy, self->fd);
	virt_map_level(self->vm, GPA, GPA, TOUCHED, variant->guest_level);
}

FIXTURE_TEARDOWN(gmem_shadow)
{
	kvm_close(self->fd);
	kvm_vm_free(self->vm);
	kvm_munmap(self->decoy, self->size);
}

static void run(struct kvm_vcpu *vcpu, u64 expected)
{
	struct ucall uc;

	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, expected);
}

/* Each page has what the guest wrote to it, for the guest and for the host. */
TEST_F(gmem_shadow, touch)
{
	u64 off, *p;

	run(self->vcpu, UCALL_SYNC);

	p = kvm_mmap(TOUCHED, PROT_READ, MAP_SHARED, self->fd);
	for (off = 0; off < TOUCHED; off += PAGE_SIZE)
		TEST_ASSERT_EQ(READ_ONCE(p[off / sizeof(*p)]), GPA + off);
	kvm_munmap(p, TOUCHED);

	run(self->vcpu, UCALL_DONE);
}

/*
 * What has been mapped once is mapped again, with neighbours that the guest is known to
 * use, ahead of their faults.
 */
TEST_F(gmem_shadow, prefetch)
{
	u8 *decoy = self->decoy;
	size_t off;

	run(self->vcpu, UCALL_SYNC);
	set_memslot(self->vm, 0, self->decoy, self->fd);
	set_memslot(self->vm, self->size, self->decoy, self->fd);
	run(self->vcpu, UCALL_DONE);

	for (off = 0; off < TOUCHED; off++)
		TEST_ASSERT_EQ(decoy[off], DECOY);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));

	return test_harness_run(argc, argv);
}
