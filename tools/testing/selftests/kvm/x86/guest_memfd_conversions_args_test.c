// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test what KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd accepts, and what it
 * returns otherwise.  VMMs take decisions on those values, and on that a
 * conversion that fails has changed nothing.
 */
#include <linux/sizes.h>

#include "gmem_conversion.h"
#include "gmem_test.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define PRIVATE		KVM_MEMORY_ATTRIBUTE_PRIVATE

/* Emulated hosts and debug kernels are slow. */
#define TIMEOUT_SECONDS	120
#define TEST_ARGS(name)	TEST_F_TIMEOUT(gmem_args, name, TIMEOUT_SECONDS)

/* Pages 0 and 1 are shared, 2 and 3 private. */
#define NR_PAGES	4
#define PRIVATE_PAGES	(BIT(2) | BIT(3))
#define ALL_PAGES	(BIT(NR_PAGES) - 1)
#define FILE_SIZE	(NR_PAGES * PAGE_SIZE)

FIXTURE(gmem_args)
{
	struct gmem_conversion t;
	int fd;
};

FIXTURE_SETUP(gmem_args)
{
	gmem_conversion_init_filled(&self->t, FILE_SIZE);
	to_private(&self->t, 2, 2);
	self->fd = self->t.fd;
}

/* Whatever a test tries, in the end the pages are as before. */
FIXTURE_TEARDOWN(gmem_args)
{
	expect_pages(&self->t, PRIVATE_PAGES);
	gmem_conversion_free(&self->t);
}

static struct kvm_memory_attributes2 range(u64 offset, u64 size)
{
	return (struct kvm_memory_attributes2) { .offset = offset, .size = size };
}

/* Returns errno, or 0.  For neither result tested here the struct is written. */
static int convert(int fd, struct kvm_memory_attributes2 attrs)
{
	struct kvm_memory_attributes2 before;
	int err;

	attrs.error_offset = GMEM_NO_ERROR_OFFSET;
	before = attrs;
	err = ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &attrs) ? errno : 0;
	TEST_ASSERT(!memcmp(&before, &attrs, sizeof(before)),
		    "Expected a struct that isn't written, error_offset is 0x%llx",
		    attrs.error_offset);
	return err;
}

/* With the attributes given, and with PRIVATE in addition. */
static void expect_einval(int fd, struct kvm_memory_attributes2 attrs)
{
	int i, err;

	for (i = 0; i < 2; i++, attrs.attributes |= PRIVATE) {
		err = convert(fd, attrs);
		TEST_ASSERT(err == EINVAL,
			    "Expected EINVAL for [0x%llx, +0x%llx) attributes 0x%llx, got %s",
			    attrs.offset, attrs.size, attrs.attributes,
			    err ? strerror(err) : "success");
	}
}

TEST_ARGS(einval_flags)
{
	struct kvm_memory_attributes2 attrs = range(0, FILE_SIZE);

	for (attrs.flags = 1; attrs.flags; attrs.flags <<= 1)
		expect_einval(self->fd, attrs);
}

TEST_ARGS(einval_reserved)
{
	struct kvm_memory_attributes2 attrs;
	int i;

	for (i = 0; i < ARRAY_SIZE(attrs.reserved); i++) {
		attrs = range(0, FILE_SIZE);
		attrs.reserved[i] = 1;
		expect_einval(self->fd, attrs);
		attrs.reserved[i] = BIT_ULL(63);
		expect_einval(self->fd, attrs);
	}
}

TEST_ARGS(einval_attributes)
{
	struct kvm_memory_attributes2 attrs = range(0, FILE_SIZE);

	for (attrs.attributes = 1; attrs.attributes; attrs.attributes <<= 1) {
		if (attrs.attributes != PRIVATE)
			expect_einval(self->fd, attrs);
	}
}

TEST_ARGS(einval_vm_without_private_memory)
{
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_DEFAULT_VM);
	int fd = vm_create_guest_memfd(vm, FILE_SIZE, GMEM_MMAP_SHARED);
	u8 *mem = kvm_mmap(FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);

	WRITE_ONCE(mem[0], 'a');
	expect_einval(fd, range(0, FILE_SIZE));
	expect_einval(fd, range(0, PAGE_SIZE));
	EXPECT_EQ('a', READ_ONCE(mem[0]));
}

TEST_ARGS(einval_size_zero)
{
	u64 i;

	for (i = 0; i <= NR_PAGES; i++)
		expect_einval(self->fd, range(i * PAGE_SIZE, 0));
}

TEST_ARGS(einval_range_wraps)
{
	expect_einval(self->fd, range(PAGE_SIZE, -PAGE_SIZE));
	expect_einval(self->fd, range(-PAGE_SIZE, PAGE_SIZE));
	expect_einval(self->fd, range(-PAGE_SIZE, 2 * PAGE_SIZE));
	expect_einval(self->fd, range(2 * PAGE_SIZE, -PAGE_SIZE));
	expect_einval(self->fd, range(BIT_ULL(63), BIT_ULL(63)));
	expect_einval(self->fd, range(BIT_ULL(63), BIT_ULL(63) + FILE_SIZE));
}

static const u64 unaligned[] = {
	1, 8, 512, PAGE_SIZE / 2, PAGE_SIZE - 1, PAGE_SIZE + 1,
};

TEST_ARGS(einval_offset_unaligned)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(unaligned); i++)
		expect_einval(self->fd, range(unaligned[i], PAGE_SIZE));
}

TEST_ARGS(einval_size_unaligned)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(unaligned); i++)
		expect_einval(self->fd, range(PAGE_SIZE, unaligned[i]));

	/* The sum is aligned. */
	expect_einval(self->fd, range(PAGE_SIZE / 2, PAGE_SIZE / 2));
}

TEST_ARGS(einval_past_the_end)
{
	expect_einval(self->fd, range(0, FILE_SIZE + PAGE_SIZE));
	expect_einval(self->fd, range(FILE_SIZE - PAGE_SIZE, 2 * PAGE_SIZE));
	expect_einval(self->fd, range(0, BIT_ULL(63)));
	expect_einval(self->fd, range(0, -PAGE_SIZE));
	expect_einval(self->fd, range(FILE_SIZE, PAGE_SIZE));
	expect_einval(self->fd, range(SZ_1G, PAGE_SIZE));
	expect_einval(self->fd, range(BIT_ULL(62), PAGE_SIZE));
	expect_einval(self->fd, range(BIT_ULL(63), PAGE_SIZE));
}

/* Arguments are wrong even if there is nothing to convert, or no way to do it. */
TEST_ARGS(einval_comes_first)
{
	struct kvm_memory_attributes2 attrs = range(0, 2 * PAGE_SIZE);
	int pin;

	attrs.flags = 1;
	expect_einval(self->fd, attrs);
	attrs.offset = 2 * PAGE_SIZE;
	expect_einval(self->fd, attrs);

	if (!host_can_pin())
		SKIP(return, "No " GUP_TEST_PATH " to pin pages with");

	pin = host_pin(&self->t, 0, 1);
	attrs.offset = 0;
	expect_einval(self->fd, attrs);
	host_unpin(pin);
}

TEST_ARGS(einval_unmaps_nothing)
{
	if (!host_has_pagemap())
		SKIP(return, "No " PAGEMAP_PATH);

	EXPECT_TRUE(host_has_mapped(&self->t, 1));
	expect_einval(self->fd, range(0, FILE_SIZE + PAGE_SIZE));
	expect_einval(self->fd, range(0, 2 * PAGE_SIZE + 1));
	EXPECT_TRUE(host_has_mapped(&self->t, 1));
}

static struct kvm_memory_attributes2 *read_only(struct kvm_memory_attributes2 attrs)
{
	void *mem = kvm_mmap(PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int r;

	memcpy(mem, &attrs, sizeof(attrs));
	r = mprotect(mem, PAGE_SIZE, PROT_READ);
	TEST_ASSERT(!r, __KVM_SYSCALL_ERROR("mprotect()", r));
	return mem;
}

TEST_ARGS(success_writes_nothing)
{
	struct kvm_memory_attributes2 attrs = range(0, 2 * PAGE_SIZE), *ro;
	int i;

	for (i = 0; i < 4; i++) {
		attrs.attributes = i & 1 ? 0 : PRIVATE;
		ro = read_only(attrs);

		/* What comes first converts, the rest has nothing to do. */
		EXPECT_ERRNO(0, i & 2 ? ioctl(self->fd, KVM_SET_MEMORY_ATTRIBUTES2, ro) : 0);
		EXPECT_EQ(0, convert(self->fd, attrs));
		EXPECT_ERRNO(0, ioctl(self->fd, KVM_SET_MEMORY_ATTRIBUTES2, ro));
		expect_pages(&self->t, i & 1 ? PRIVATE_PAGES : ALL_PAGES);
	}
}

TEST_ARGS(efault_unreadable)
{
	struct kvm_memory_attributes2 attrs = range(0, FILE_SIZE);
	char *mem = kvm_mmap(2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1);
	void *last_word_missing = mem + PAGE_SIZE - sizeof(attrs) + sizeof(u64);
	void *bad[] = {
		NULL,
		mem + PAGE_SIZE,
		last_word_missing,
		(void *)-PAGE_SIZE,
		(void *)BIT_ULL(63),
	};
	int i;

	/* The last word is reserved, i.e. zero anyway. */
	memcpy(last_word_missing, &attrs, sizeof(attrs));
	ASSERT_EQ(0, mprotect(mem + PAGE_SIZE, PAGE_SIZE, PROT_NONE));

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_ERRNO(EFAULT, ioctl(self->fd, KVM_SET_MEMORY_ATTRIBUTES2, bad[i]))
			TH_LOG("address %p", bad[i]);
	}
	kvm_munmap(mem, 2 * PAGE_SIZE);
}

TEST_ARGS(efault_unwritable)
{
	struct kvm_memory_attributes2 attrs = range(0, 2 * PAGE_SIZE), *ro;
	int pin;

	if (!host_can_pin())
		SKIP(return, "No " GUP_TEST_PATH " to pin pages with");

	attrs.attributes = PRIVATE;
	ro = read_only(attrs);
	pin = host_pin(&self->t, 1, 1);

	EXPECT_ERRNO(EAGAIN, ioctl(self->fd, KVM_SET_MEMORY_ATTRIBUTES2, &attrs));
	EXPECT_EQ(PAGE_SIZE, attrs.error_offset);
	EXPECT_ERRNO(EFAULT, ioctl(self->fd, KVM_SET_MEMORY_ATTRIBUTES2, ro));
	expect_pages(&self->t, PRIVATE_PAGES);

	host_unpin(pin);
	EXPECT_ERRNO(0, ioctl(self->fd, KVM_SET_MEMORY_ATTRIBUTES2, ro));
	expect_pages(&self->t, ALL_PAGES);
	to_shared(&self->t, 0, 2);
}

/* What is nearly the ioctl, with what would be its argument. */
TEST_ARGS(enotty_unknown_ioctl)
{
	const unsigned long cmds[] = {
		KVM_SET_MEMORY_ATTRIBUTES,
		KVM_GET_API_VERSION,
		_IO(KVMIO, 0xd2),
		_IOR(KVMIO, 0xd2, struct kvm_memory_attributes2),
		_IOW(KVMIO, 0xd2, struct kvm_memory_attributes2),
		_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes),
		_IOWR(KVMIO, 0xd3, struct kvm_memory_attributes2),
	};
	struct kvm_memory_attributes2 attrs = range(0, FILE_SIZE);
	int i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		attrs.attributes = i & 1 ? PRIVATE : 0;
		EXPECT_ERRNO(ENOTTY, ioctl(self->fd, cmds[i], &attrs))
			TH_LOG("ioctl 0x%lx", cmds[i]);
	}
}

/* x86 has EINVAL for ioctls that /dev/kvm, or a vCPU, doesn't know. */
TEST_ARGS(unknown_to_other_fds)
{
	const struct {
		int fd, err;
	} other[] = {
		{ self->t.vm->kvm_fd, EINVAL },
		{ self->t.vm->fd, ENOTTY },
		{ self->t.vcpu->fd, EINVAL },
	};
	struct kvm_memory_attributes2 attrs = range(0, FILE_SIZE);
	int i;

	for (i = 0; i < ARRAY_SIZE(other); i++) {
		EXPECT_EQ(other[i].err, convert(other[i].fd, attrs))
			TH_LOG("fd %d of the table", i);
	}
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
