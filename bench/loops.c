/* What unitmem is measured against and with: loops over the files that it reads, and units that use memory.

   Linked statically on the host, for a guest that has no compiler. Figures go to stdout, one line each. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void wait_for(double span) {
    struct timespec time = {(time_t)span, (long)((span - (time_t)span) * 1e9)};
    nanosleep(&time, NULL);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int opened(const char *directory, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(path);
    return file;
}

static long long number_after(const char *text, const char *key) {
    const char *found = strstr(text, key);
    return found ? atoll(found + strlen(key)) : -1;
}

static const char *read_at_start(int file, char *data, size_t room) {
    ssize_t size = pread(file, data, room - 1, 0);
    data[size > 0 ? size : 0] = 0;
    return data;
}

/* sample ROUNDS DIRECTORY...: seconds of CPU for a sample of memory.current and three keys of memory.stat */
static void sample(int rounds, int count, char **directories) {
    int *files = calloc(count * 2, sizeof *files);
    char data[8192];
    volatile long long sum = 0;
    for (int i = 0; i < count; i++) {
        files[2 * i] = opened(directories[i], "memory.current");
        files[2 * i + 1] = opened(directories[i], "memory.stat");
    }
    double from = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) {
            /* the lesser of two readings around memory.stat, as unitmem takes it */
            sum += atoll(read_at_start(files[2 * i], data, sizeof data));
            read_at_start(files[2 * i + 1], data, sizeof data);
            sum -= number_after(data, "\ninactive_file ") + number_after(data, "\nactive_file ");
            sum -= number_after(data, "\nslab_reclaimable ");
            sum += atoll(read_at_start(files[2 * i], data, sizeof data));
        }
    printf("%.9f\n", (seconds(CLOCK_PROCESS_CPUTIME_ID) - from) / rounds / count);
}

/* poll SECONDS DIRECTORY...: read memory.current of every cgroup that often, until it is ended */
static void poll_current(double pause, int count, char **directories) {
    int *files = calloc(count, sizeof *files);
    char data[64];
    volatile long long most = 0;
    for (int i = 0; i < count; i++) files[i] = opened(directories[i], "memory.current");
    for (;; wait_for(pause))
        for (int i = 0; i < count; i++) {
            long long current = atoll(read_at_start(files[i], data, sizeof data));
            if (current > most) most = current;
        }
}

/* pss ROUNDS PID...: seconds of CPU for one reading of a process's PSS */
static void pss(int rounds, int count, char **pids) {
    char path[64], data[8192];
    volatile long long sum = 0;
    double from = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) {
            snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pids[i]);
            int file = open(path, O_RDONLY | O_CLOEXEC);
            if (file < 0) continue;
            sum += number_after(read_at_start(file, data, sizeof data), "\nPss:");
            close(file);
        }
    printf("%.9f\n", (seconds(CLOCK_PROCESS_CPUTIME_ID) - from) / rounds / count);
}

/* fork COUNT: that many children that sleep */
static void fork_children(int count) {
    for (int i = 0; i < count; i++)
        if (fork() == 0) pause();
    puts("ready");
    fflush(stdout);
    pause();
}

/* churn MIB: map that much, write every page, unmap it, as fast as it goes */
static void churn(size_t mib) {
    for (;;) {
        void *held = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (held == MAP_FAILED) fail("mmap");
        munmap(held, mib << 20);
    }
}

static volatile double signalled; /* when */
static void on_signal(int number) {
    (void)number;
    signalled = seconds(CLOCK_MONOTONIC);
}

/* leak MIB_A_SECOND above|below MIB FILE [KEY]: leak until SIGTERM; print the milliseconds from the crossing to the
   signal, and the MiB that were leaked in between

   The crossing is when the number in FILE, after KEY if there is one, first is above, or below, so many MiB. The leak
   begins two seconds of its rate before that, at most half a GiB, after a rest in which a guard finds its pace. */
static void leak(double rate, int is_above, double threshold, const char *path, const char *key) {
    const size_t STEP = 64 << 10;
    char data[8192];
    int file = open(path, O_RDONLY);
    if (file < 0) fail(path);
    signal(SIGTERM, on_signal);
    setvbuf(stdout, NULL, _IONBF, 0);
    double lead = rate * 2 < 512 ? rate * 2 : 512, crossed = 0, begun = 0, leaked = 0, at_crossing = 0;
    int is_leaking = 0;
    for (;;) {
        read_at_start(file, data, sizeof data);
        double value = key ? number_after(data, key) / 1024. : atoll(data) / 1048576.;
        double distance = is_above ? threshold - value : value - threshold;
        double now = seconds(CLOCK_MONOTONIC);
        if (signalled) {
            if (crossed)
                printf("signal after %.3f ms and %.3f MiB\n", (signalled - crossed) * 1e3, leaked - at_crossing);
            else printf("signal before the crossing, at a distance of %.3f MiB\n", distance);
            exit(0);
        }
        if (!crossed && distance < 0) {
            crossed = now;
            at_crossing = leaked;
            puts("crossed");
        }
        if (!is_leaking && distance < lead) {
            wait_for(5); /* a signal ends it early */
            is_leaking = 1;
            begun = seconds(CLOCK_MONOTONIC);
            leaked = 0;
            continue;
        }
        /* by the clock, so that a late step catches up; before that as fast as it goes */
        double due = is_leaking ? rate * (now - begun) - leaked : distance - lead;
        if (due > 4) due = 4;
        size_t size = due > 0 ? ((size_t)(due * 1048576) + STEP - 1) / STEP * STEP : 0;
        if (size) {
            char *held = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (held == MAP_FAILED) fail("mmap");
            for (size_t at = 0; at < size; at += 4096) held[at] = 1; /* MAP_POPULATE would stop at a limit, unkilled */
            leaked += size / 1048576.;
        }
        if (is_leaking) wait_for(0.002);
    }
}

int main(int count, char **words) {
    const char *verb = count > 1 ? words[1] : "";
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    if (!strcmp(verb, "rest")) pause();
    else if (!strcmp(verb, "sample") && count > 3) sample(atoi(words[2]), count - 3, words + 3);
    else if (!strcmp(verb, "poll") && count > 3) poll_current(atof(words[2]), count - 3, words + 3);
    else if (!strcmp(verb, "pss") && count > 3) pss(atoi(words[2]), count - 3, words + 3);
    else if (!strcmp(verb, "fork") && count == 3) fork_children(atoi(words[2]));
    else if (!strcmp(verb, "churn") && count == 3) churn(atoi(words[2]));
    else if (!strcmp(verb, "leak") && count > 5)
        leak(atof(words[2]), !strcmp(words[3], "above"), atof(words[4]), words[5], count > 6 ? words[6] : NULL);
    else {
        fprintf(stderr, "usage: loops rest|sample|poll|pss|fork|churn|leak ...: see loops.c\n");
        return 2;
    }
    return 0;
}
