// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that a guest's guest sees what it has to of a guest_memfd's HugeTLB pages, before,
 * while and after some of their memory is shared.  KVM shadows the page tables that L1 has
 * for L2; which leaves that takes is up to L1, too, and isn't asked for.
 */
#include "gmem_conversion.h"
#include "gmem_leaves.h"
#include "gmem_pieces.h"
#include "gmem_test.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "svm_util.h"
#include "vmx.h"

/* As much of the file as L2 touches in seconds, in pages. */
#define TOUCHED		(SZ_2M / PAGE_SIZE)

FIXTURE(gmem_nested)
{
	struct gmem_conversion t;
};

/* L1 maps the memory to L2 with small pages, or all of it and more with one. */
FIXTURE_VARIANT(gmem_nested)
{
	size_t page_size;
	u64 flag;
	int level;
};

FIXTURE_VARIANT_ADD(gmem_nested, 2M_by_4K)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.level = PG_LEVEL_4K,
};

FIXTURE_VARIANT_ADD(gmem_nested, 2M_by_1G)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.level = PG_LEVEL_1G,
};

FIXTURE_VARIANT_ADD(gmem_nested, 1G_by_4K)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.level = PG_LEVEL_4K,
};

FIXTURE_VARIANT_ADD(gmem_nested, 1G_by_1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.level = PG_LEVEL_1G,
};

/* L2 does what guest_do() asks for.  L1 intercepts nothing of that. */
static void l1_guest_code(void *nested)
{
	struct svm_test_data *svm = nested;
	struct vmx_pages *vmx = nested;

	if (this_cpu_has(X86_FEATURE_VMX)) {
		GUEST_ASSERT(prepare_for_vmx_operation(vmx));
		GUEST_ASSERT(load_vmcs(vmx));
		prepare_vmcs(vmx, gmem_pieces_guest_code);
		vmlaunch();
	} else {
		generic_svm_setup(svm, gmem_pieces_guest_code);
		run_guest(svm->vmcb, svm->vmcb_gpa);
	}
	GUEST_FAIL("L2 should not come back to L1");
}

static void map_to_l2(struct kvm_vm *vm, int level)
{
	tdp_identity_map_default_memslots(vm);
	if (level == PG_LEVEL_1G)
		tdp_identity_map_1g(vm, GMEM_GPA, SZ_1G);
	else
		tdp_map(vm, GMEM_GPA, GMEM_GPA, TOUCHED * PAGE_SIZE);
}

FIXTURE_SETUP(gmem_nested)
{
	struct gmem_conversion *t = &self->t;
	gva_t nested;

	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 1) < 1)
		SKIP(return, "The pool hasn't got a page of %zu bytes", variant->page_size);

	gmem_conversion_init(t, variant->page_size, variant->flag | GMEM_MMAP_PRIVATE,
			     l1_guest_code);
	vm_enable_tdp(t->vm);
	if (kvm_cpu_has(X86_FEATURE_VMX))
		vcpu_alloc_vmx(t->vm, &nested);
	else
		vcpu_alloc_svm(t->vm, &nested);
	vcpu_args_set(t->vcpu, 1, nested);
	map_to_l2(t->vm, variant->level);
}

FIXTURE_TEARDOWN(gmem_nested)
{
	gmem_conversion_free(&self->t);
}

#define TEST_NESTED(name)	TEST_F_TIMEOUT(gmem_nested, name, PIECES_TIMEOUT)

TEST_NESTED(conversion)
{
	struct gmem_conversion *t = &self->t;
	const u64 pages[] = { 0, 5, TOUCHED - 1 };
	int i;

	guest_fill(t, 0, TOUCHED);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		to_shared(t, pages[i], 1);
		host_expect(t, pages[i], 1);
		guest_expect(t, 0, TOUCHED);

		/* Both write to the same page. */
		WRITE_ONCE(*(u64 *)(t->mem + pages[i] * PAGE_SIZE), 0);
		guest_fill(t, pages[i], 1);
		host_expect(t, pages[i], 1);

		to_private(t, pages[i], 1);
		host_faults(t, pages[i]);
		guest_expect(t, 0, TOUCHED);
	}
	expect_whole(t, 1);
	EXPECT_EQ(0, count_faults(t, 0, TOUCHED));
}

/* Nothing of the old page is left where KVM has shadowed what L1 maps. */
TEST_NESTED(punch)
{
	struct gmem_conversion *t = &self->t;
	u64 i;

	guest_fill(t, 0, TOUCHED);
	kvm_fallocate(t->fd, PUNCH, 0, t->size);
	guest_fill(t, 0, 1);

	to_shared(t, 0, TOUCHED);
	host_expect(t, 0, 1);
	for (i = 1; i < TOUCHED; i++)
		EXPECT_EQ(0, READ_ONCE(*(u64 *)(t->mem + i * PAGE_SIZE)));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SVM) || kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(kvm_cpu_has_tdp());
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
