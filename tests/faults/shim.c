/* Preloaded into a process: a wall clock that is wrong and runs backwards, and no network.
 *
 * CLOCK_FROM   seconds since 1970 that the wall clock starts at; from there it runs backwards,
 *              a thousand times as fast. Only Python is told so: the kernel's waits, which
 *              libraries compute with, would disagree. Monotonic clocks are left alone.
 * NETWORK_LOG  file that each attempt to reach the network is written to; all of them fail.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int is_python(void *address) {
  Dl_info at;
  if (!dladdr(address, &at) || !at.dli_fname) return 0;
  const char *name = strrchr(at.dli_fname, '/');
  name = name ? name + 1 : at.dli_fname;
  return !strncmp(name, "python", 6) || !strncmp(name, "libpython", 9);
}

int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  const char *from = getenv("CLOCK_FROM");
  int code = real(id, now);
  if (!from || id != CLOCK_REALTIME || !is_python(__builtin_return_address(0))) return code;
  struct timespec passed;
  real(CLOCK_PROCESS_CPUTIME_ID, &passed);
  now->tv_sec = atoll(from) - 1000 * passed.tv_sec - passed.tv_nsec / 1000000;
  return code;
}

static int logged(const char *what) {
  const char *path = getenv("NETWORK_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) fprintf(file, "%s\n", what), fclose(file);
  return path != NULL;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  if (!real) real = dlsym(RTLD_NEXT, "connect");
  if (address->sa_family != AF_UNIX && logged("connect")) return errno = ENETUNREACH, -1;
  return real(fd, address, length);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
  static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
  if (logged(node ? node : "getaddrinfo")) return EAI_FAIL;
  return real(node, service, hints, found);
}
