// libfaketime 0.9.10 breaks sleeps until a time of a clock that it does not fake, such as those of Python's time.sleep.
// Loaded before it, this takes them straight to the kernel.
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    int kept = errno;
    int failed = syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
    errno = kept;
    return failed;
}
