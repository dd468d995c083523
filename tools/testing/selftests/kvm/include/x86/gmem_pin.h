/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Those who pin memory of a guest_memfd for long: io_uring, with a buffer that is
 * registered, and gup_test.
 */
#ifndef SELFTEST_KVM_GMEM_PIN_H
#define SELFTEST_KVM_GMEM_PIN_H

/* io_uring.h relies on types.h to include it, which that of tools/ doesn't. */
#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <sys/uio.h>

#include "gmem_conversion.h"

/* Somebody who keeps memory pinned; the rings are io_uring's. */
struct pin {
	int fd;
	struct iovec buf;
	struct io_uring_params params;
	struct io_uring_sqe *sqe;
	void *rings;
};

static inline bool uring_open(struct pin *pin)
{
	pin->fd = syscall(__NR_io_uring_setup, 1, &pin->params);
	if (pin->fd < 0)
		return false;

	TEST_ASSERT(pin->params.features & IORING_FEAT_SINGLE_MMAP,
		    "Expected one mapping for both rings");
	pin->rings = __kvm_mmap(PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
				pin->fd, IORING_OFF_SQ_RING);
	pin->sqe = __kvm_mmap(PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			      pin->fd, IORING_OFF_SQES);
	return true;
}

static inline int uring_pin(struct pin *pin, void *mem, size_t size)
{
	pin->buf = (struct iovec) { mem, size };
	return syscall(__NR_io_uring_register, pin->fd, IORING_REGISTER_BUFFERS,
		       &pin->buf, 1);
}

static inline int uring_unpin(struct pin *pin)
{
	return syscall(__NR_io_uring_register, pin->fd,
		       IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/*
 * Transfer the first page of the buffer from or to the beginning of @fd.  The
 * queue has a single entry, to which the zeroed array refers.
 */
static inline int uring_transfer(struct pin *pin, u8 opcode, int fd)
{
	u32 *tail = pin->rings + pin->params.sq_off.tail;
	u32 *head = pin->rings + pin->params.cq_off.head;
	struct io_uring_cqe *cqes = pin->rings + pin->params.cq_off.cqes;
	int r, result;

	*pin->sqe = (struct io_uring_sqe) {
		.opcode = opcode,
		.fd = fd,
		.addr = (unsigned long)pin->buf.iov_base,
		.len = PAGE_SIZE,
	};
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	r = syscall(__NR_io_uring_enter, pin->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0);
	TEST_ASSERT(r == 1, __KVM_SYSCALL_ERROR("io_uring_enter()", r));

	result = cqes[*head & (pin->params.cq_entries - 1)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static inline u8 uring_peek(struct pin *pin)
{
	int r, fd = memfd_create("peek", 0);
	u8 val;

	r = uring_transfer(pin, IORING_OP_WRITE_FIXED, fd);
	TEST_ASSERT(r == PAGE_SIZE, "Expected to write a page, got %d", r);
	TEST_ASSERT(pread(fd, &val, 1, 0) == 1, "Expected something in the file");
	kvm_close(fd);
	return val;
}

static inline bool gup_open(struct pin *pin)
{
	pin->fd = open(GUP_TEST_PATH, O_RDWR);
	return pin->fd >= 0;
}

static inline int gup_pin(struct pin *pin, void *mem, size_t size)
{
	struct pin_longterm_test args = {
		.addr = (unsigned long)mem,
		.size = size,
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};

	return ioctl(pin->fd, PIN_LONGTERM_TEST_START, &args);
}

static inline int gup_unpin(struct pin *pin)
{
	return ioctl(pin->fd, PIN_LONGTERM_TEST_STOP);
}

static inline u8 gup_peek(struct pin *pin)
{
	u8 buf[PAGE_SIZE];
	u64 addr = (unsigned long)buf;
	int r = ioctl(pin->fd, PIN_LONGTERM_TEST_READ, &addr);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(PIN_LONGTERM_TEST_READ, r));
	return buf[0];
}

/* Two ways to pin memory. */
struct pin_ops {
	bool (*open)(struct pin *pin);
	int (*pin)(struct pin *pin, void *mem, size_t size);
	int (*unpin)(struct pin *pin);
	/* The first byte of what is pinned, mapped or not; of one page only. */
	u8 (*peek)(struct pin *pin);
};

static const struct pin_ops io_uring_ops = {
	.open = uring_open,
	.pin = uring_pin,
	.unpin = uring_unpin,
	.peek = uring_peek,
};

static const struct pin_ops gup_test_ops = {
	.open = gup_open,
	.pin = gup_pin,
	.unpin = gup_unpin,
	.peek = gup_peek,
};

#endif /* SELFTEST_KVM_GMEM_PIN_H */
