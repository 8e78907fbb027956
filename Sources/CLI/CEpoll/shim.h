// epoll, which Swift's Glibc module leaves out, and the variadic prctl, which Swift cannot import.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>

static inline int cepoll_add(int poll, int descriptor, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
}

static inline int cepoll_change(int poll, int descriptor, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(poll, EPOLL_CTL_MOD, descriptor, &event);
}

// epoll_wait to the nanosecond; to the millisecond before Linux 5.11.
static inline int cepoll_wait(int poll, struct epoll_event *events, int count, uint64_t nanoseconds) {
    struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int ready = epoll_pwait2(poll, events, count, &limit, 0);
    if (ready < 0 && errno == ENOSYS) ready = epoll_wait(poll, events, count, (nanoseconds + 999999) / 1000000);
    return ready;
}

static inline uint64_t cepoll_data(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t cepoll_events(const struct epoll_event *event) { return event->events; }

static const uint32_t cepoll_in = EPOLLIN;
static const uint32_t cepoll_out = EPOLLOUT;

// Has the calling thread woken when its time has come, not up to 50 us later.
static inline void cepoll_exact_timers(void) { prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); }
