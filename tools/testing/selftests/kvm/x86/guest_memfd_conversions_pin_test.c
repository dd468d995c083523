// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test in-place conversion of guest_memfd against the references that the kernel
 * takes to shared memory for I/O.  They block the conversion of just the pages
 * that they are to, and just as long as they last; see also
 * guest_memfd_conversions_io_test for those that last for a moment only.
 *
 * Each case has a process of its own, whose end releases what the case holds.
 */
#include <linux/falloc.h>
/* io_uring.h relies on types.h to include it, which that of tools/ doesn't. */
#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <sys/uio.h>

#include "gmem_conversion.h"
#include "kselftest_harness.h"

#include "../../../../../mm/gup_test.h"

#define GUP_TEST	"/sys/kernel/debug/gup_test"
#define PUNCH		(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)

#define NR_PAGES	8
#define ALL_PAGES	(BIT_ULL(NR_PAGES) - 1)
#define OFFSET(pgoff)	((u64)(pgoff) * PAGE_SIZE)

#define TEST_PIN(name)		TEST_F_TIMEOUT(gmem_pin, name, 180)
#define TEST_REFERENCE(name)	TEST_F_TIMEOUT(gmem_reference, name, 180)

#define EXPECT_ERRNO(err, call)	EXPECT_EQ((err), (call) == -1 ? errno : 0)

static void expect_refusal(struct gmem_conversion *t, u64 pgoff, u64 nr, u64 busy)
{
	u64 error_offset;
	int r = __gmem_set_private(t->fd, OFFSET(pgoff), OFFSET(nr), &error_offset);

	TEST_ASSERT(r == -1 && errno == EAGAIN,
		    "Expected EAGAIN for pages [%lu, +%lu), got %s", pgoff, nr,
		    r ? strerror(errno) : "success");
	TEST_ASSERT(error_offset == OFFSET(busy),
		    "Expected EAGAIN for page %lu, got it for offset 0x%lx",
		    busy, error_offset);
}

static void expect_conversion(struct gmem_conversion *t, u64 pgoff, u64 nr)
{
	if (!nr)
		return;

	to_private(t, pgoff, nr);
	expect_pages(t, (BIT_ULL(nr) - 1) << pgoff);
	to_shared(t, pgoff, nr);
}

/* Pages [@first, @first + @nr) are in use, and no other ones. */
static void expect_busy_pages(struct gmem_conversion *t, u64 first, u64 nr)
{
	u64 pgoff, end = first + nr;

	expect_refusal(t, 0, NR_PAGES, first);
	expect_refusal(t, end - 1, NR_PAGES - end + 1, end - 1);
	expect_pages(t, 0);

	expect_conversion(t, 0, first);
	expect_conversion(t, end, NR_PAGES - end);
	for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
		if (pgoff >= first && pgoff < end)
			expect_refusal(t, pgoff, 1, pgoff);
		else
			expect_conversion(t, pgoff, 1);
	}
}

/* Somebody who keeps memory pinned; the rings are io_uring's. */
struct pin {
	int fd;
	struct iovec buf;
	struct io_uring_params params;
	struct io_uring_sqe *sqe;
	void *rings;
};

static bool uring_open(struct pin *pin)
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

static int uring_pin(struct pin *pin, void *mem, size_t size)
{
	pin->buf = (struct iovec) { mem, size };
	return syscall(__NR_io_uring_register, pin->fd, IORING_REGISTER_BUFFERS,
		       &pin->buf, 1);
}

static int uring_unpin(struct pin *pin)
{
	return syscall(__NR_io_uring_register, pin->fd,
		       IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/*
 * Transfer the first page of the buffer from or to the beginning of @fd.  The
 * queue has a single entry, to which the zeroed array refers.
 */
static int uring_transfer(struct pin *pin, u8 opcode, int fd)
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

static u8 uring_peek(struct pin *pin)
{
	int r, fd = memfd_create("peek", 0);
	u8 val;

	r = uring_transfer(pin, IORING_OP_WRITE_FIXED, fd);
	TEST_ASSERT(r == PAGE_SIZE, "Expected to write a page, got %d", r);
	TEST_ASSERT(pread(fd, &val, 1, 0) == 1, "Expected something in the file");
	kvm_close(fd);
	return val;
}

static bool gup_open(struct pin *pin)
{
	pin->fd = open(GUP_TEST, O_RDWR);
	return pin->fd >= 0;
}

static int gup_pin(struct pin *pin, void *mem, size_t size)
{
	struct pin_longterm_test args = {
		.addr = (unsigned long)mem,
		.size = size,
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};

	return ioctl(pin->fd, PIN_LONGTERM_TEST_START, &args);
}

static int gup_unpin(struct pin *pin)
{
	return ioctl(pin->fd, PIN_LONGTERM_TEST_STOP);
}

static u8 gup_peek(struct pin *pin)
{
	u8 buf[PAGE_SIZE];
	u64 addr = (unsigned long)buf;
	int r = ioctl(pin->fd, PIN_LONGTERM_TEST_READ, &addr);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(PIN_LONGTERM_TEST_READ, r));
	return buf[0];
}

FIXTURE(gmem_pin)
{
	struct gmem_conversion t;
	struct pin pin;
};

FIXTURE_VARIANT(gmem_pin)
{
	bool (*open)(struct pin *pin);
	int (*pin)(struct pin *pin, void *mem, size_t size);
	int (*unpin)(struct pin *pin);
	/* The first byte of what is pinned, mapped or not; of one page only. */
	u8 (*peek)(struct pin *pin);
};

FIXTURE_VARIANT_ADD(gmem_pin, io_uring)
{
	.open = uring_open,
	.pin = uring_pin,
	.unpin = uring_unpin,
	.peek = uring_peek,
};

FIXTURE_VARIANT_ADD(gmem_pin, gup_test)
{
	.open = gup_open,
	.pin = gup_pin,
	.unpin = gup_unpin,
	.peek = gup_peek,
};

FIXTURE_SETUP(gmem_pin)
{
	if (!variant->open(&self->pin))
		SKIP(return, "Can't pin memory this way: %s", strerror(errno));

	gmem_conversion_init_filled(&self->t, OFFSET(NR_PAGES));
}

FIXTURE_TEARDOWN(gmem_pin)
{
	kvm_close(self->pin.fd);
}

/* Test bodies know self and variant; so do these. */
#define pin_pages(pgoff, nr)	\
	ASSERT_EQ(0, variant->pin(&self->pin, self->t.mem + OFFSET(pgoff), OFFSET(nr)))
#define unpin_pages()		\
	ASSERT_EQ(0, variant->unpin(&self->pin))
#define EXPECT_PINNED(val)	\
	EXPECT_EQ((val), variant->peek(&self->pin))

TEST_PIN(one_page)
{
	u64 pgoff;

	for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
		pin_pages(pgoff, 1);
		expect_busy_pages(&self->t, pgoff, 1);
		unpin_pages();
		wait_for_conversion(&self->t, pgoff, 1);
		expect_pages(&self->t, ALL_PAGES);
		to_shared(&self->t, 0, NR_PAGES);
	}
}

TEST_PIN(several_pages)
{
	pin_pages(2, 3);
	expect_busy_pages(&self->t, 2, 3);
	expect_refusal(&self->t, 3, 2, 3);
	unpin_pages();
	wait_for_conversion(&self->t, 2, 3);
}

TEST_PIN(all_pages)
{
	pin_pages(0, NR_PAGES);
	expect_busy_pages(&self->t, 0, NR_PAGES);
	unpin_pages();
	wait_for_conversion(&self->t, 0, NR_PAGES);
}

/* A refusal takes no more than the mapping, which comes back. */
TEST_PIN(refusal_keeps_the_page)
{
	struct gmem_conversion *t = &self->t;

	pin_pages(2, 1);
	expect_refusal(t, 0, NR_PAGES, 2);
	EXPECT_PINNED(VAL(2));
	host_access(t, 2, VAL(2), 'a');
	EXPECT_PINNED('a');
	expect_refusal(t, 2, 1, 2);
	guest_access(t, 2, 'a', VAL(2));
	EXPECT_PINNED(VAL(2));
	expect_pages(t, 0);
	unpin_pages();
}

TEST_PIN(private_page)
{
	to_private(&self->t, 2, 1);
	EXPECT_ERRNO(EFAULT, variant->pin(&self->pin, self->t.mem + OFFSET(2), PAGE_SIZE));
	EXPECT_ERRNO(EFAULT, variant->pin(&self->pin, self->t.mem + OFFSET(1), 2 * PAGE_SIZE));

	/* And what could be pinned has been let go of. */
	wait_for_conversion(&self->t, 1, 1);
}

/* What is pinned is not the file's any more, which has a new page. */
TEST_PIN(punch_hole)
{
	struct gmem_conversion *t = &self->t;

	pin_pages(2, 1);
	kvm_fallocate(t->fd, PUNCH, OFFSET(2), PAGE_SIZE);
	to_private(t, 2, 1);
	to_shared(t, 2, 1);

	expect_shared(t, 2, 0, 'a');
	EXPECT_PINNED(VAL(2));
	to_private(t, 2, 1);
	expect_private(t, 2, 'a', 'b');
	EXPECT_PINNED(VAL(2));
	unpin_pages();
	expect_private(t, 2, 'b', 'c');
}

TEST_PIN(close_file)
{
	pin_pages(2, 1);
	gmem_conversion_free(&self->t);
	EXPECT_PINNED(VAL(2));
	unpin_pages();
}

TEST_PIN(destroy_vm)
{
	struct gmem_conversion *t = &self->t;

	pin_pages(2, 1);
	kvm_vm_free(t->vm);
	expect_refusal(t, 0, NR_PAGES, 2);
	host_access(t, 2, VAL(2), 'a');
	EXPECT_PINNED('a');
	unpin_pages();
	wait_for_conversion(t, 2, 1);
	host_faults(t, 2);
}

FIXTURE(gmem_reference)
{
	struct gmem_conversion t;
};

FIXTURE_SETUP(gmem_reference)
{
	gmem_conversion_init_filled(&self->t, OFFSET(NR_PAGES));
}

FIXTURE_TEARDOWN(gmem_reference)
{
	gmem_conversion_free(&self->t);
}

/* I/O goes on in a buffer after its page could not be converted. */
TEST_REFERENCE(registered_buffer)
{
	struct gmem_conversion *t = &self->t;
	u8 *page = t->mem + OFFSET(2), data[PAGE_SIZE], back[PAGE_SIZE];
	int file = memfd_create("data", 0);
	struct pin pin = {};

	if (!uring_open(&pin))
		SKIP(return, "io_uring_setup() failed: %s", strerror(errno));

	memset(data, 'a', PAGE_SIZE);
	ASSERT_EQ(PAGE_SIZE, pwrite(file, data, PAGE_SIZE, 0));
	ASSERT_EQ(0, uring_pin(&pin, page, PAGE_SIZE));
	expect_refusal(t, 2, 1, 2);
	EXPECT_EQ(PAGE_SIZE, uring_transfer(&pin, IORING_OP_READ_FIXED, file));
	EXPECT_EQ(0, memcmp(page, data, PAGE_SIZE));

	guest_access(t, 2, 'a', 'b');
	expect_refusal(t, 2, 1, 2);
	EXPECT_EQ(PAGE_SIZE, uring_transfer(&pin, IORING_OP_WRITE_FIXED, file));
	ASSERT_EQ(PAGE_SIZE, pread(file, back, PAGE_SIZE, 0));
	EXPECT_EQ(0, memcmp(page, back, PAGE_SIZE));
	EXPECT_EQ('b', back[0]);

	ASSERT_EQ(0, uring_unpin(&pin));
	wait_for_conversion(t, 2, 1);
	expect_private(t, 2, 'b', 'c');
}

/*
 * If the kernel copies the data instead, nobody has a reference.  Tried with
 * shared memory, as a write to private memory may make a copy itself.
 */
static bool vmsplice_refers(int fds[2])
{
	u8 *page = kvm_mmap(PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1);
	struct iovec iov = { page, PAGE_SIZE };
	u8 back[PAGE_SIZE];

	TEST_ASSERT(vmsplice(fds[1], &iov, 1, 0) == PAGE_SIZE, "vmsplice() failed");
	WRITE_ONCE(page[0], 'a');
	TEST_ASSERT(read(fds[0], back, PAGE_SIZE) == PAGE_SIZE, "read() failed");
	kvm_munmap(page, PAGE_SIZE);
	return back[0] == 'a';
}

TEST_REFERENCE(vmsplice)
{
	struct gmem_conversion *t = &self->t;
	struct iovec iov = { t->mem + OFFSET(2), PAGE_SIZE };
	u8 back[PAGE_SIZE];
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	if (!vmsplice_refers(fds))
		SKIP(return, "vmsplice() copies");

	ASSERT_EQ(PAGE_SIZE, vmsplice(fds[1], &iov, 1, 0));
	expect_busy_pages(t, 2, 1);
	ASSERT_EQ(PAGE_SIZE, read(fds[0], back, PAGE_SIZE));
	EXPECT_EQ(VAL(2), back[0]);

	wait_for_conversion(t, 2, 1);
	EXPECT_ERRNO(EFAULT, vmsplice(fds[1], &iov, 1, 0));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
