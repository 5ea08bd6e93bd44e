// Makes whatever writes below a folder fail with EIO: to be loaded with LD_PRELOAD.
// FAIL_IN: the folder. FAIL_FROM: the number of the first call that fails; all after it fail, too.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static int fails(int fd)
{
	const char *folder = getenv("FAIL_IN"), *from = getenv("FAIL_FROM");
	char name[64], path[4096];
	ssize_t length;

	if (!folder || !from)
		return 0;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, path, sizeof(path) - 1);
	if (length <= 0)
		return 0;
	path[length] = 0;
	if (strncmp(path, folder, strlen(folder)) != 0)
		return 0;
	if (atomic_fetch_add(&calls, 1) < atol(from))
		return 0;
	errno = EIO;
	return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count)
{
	return fails(fd) ? -1 : NEXT(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
	return fails(fd) ? -1 : NEXT(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
	return fails(fd) ? -1 : NEXT(pwrite64)(fd, bytes, count, at);
}

int fsync(int fd)
{
	return fails(fd) ? -1 : NEXT(fsync)(fd);
}

int fdatasync(int fd)
{
	return fails(fd) ? -1 : NEXT(fdatasync)(fd);
}

int ftruncate(int fd, off_t length)
{
	return fails(fd) ? -1 : NEXT(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length)
{
	return fails(fd) ? -1 : NEXT(ftruncate64)(fd, length);
}
